/**
 * Pictures of the dashboard for people to look at: each page light and dark, wide and narrow, into the ignored folder
 * `test-results/`. Used by the end-to-end test; compares nothing.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Browser } from 'playwright-core';
import { root } from './running-product.ts';

const widthsPx = [1440, 390] as const;
const schemes = ['light', 'dark'] as const;

/**
 * @param path of the page, with its query
 * @param shows a selector that the picture waits for
 */
export async function takePictures(
  browser: Browser,
  webUrl: string,
  picture: { readonly name: string; readonly path: string; readonly shows: string },
): Promise<void> {
  const folder = join(root, 'test-results');
  mkdirSync(folder, { recursive: true });
  const page = await browser.newPage({ viewport: { width: widthsPx[0], height: 900 } });
  await page.goto(`${webUrl}${picture.path}`);
  try {
    await page.locator(picture.shows).first().waitFor({ timeout: 30_000 });
  } catch (error) {
    await page.screenshot({ path: join(folder, `${picture.name}-failed.png`) });
    throw error;
  }
  for (const width of widthsPx) {
    await page.setViewportSize({ width, height: 900 });
    for (const colorScheme of schemes) {
      await page.emulateMedia({ colorScheme });
      await page.screenshot({
        path: join(folder, `${picture.name}-${colorScheme}-${width}.png`),
        fullPage: true,
      });
    }
  }
  await page.close();
}
