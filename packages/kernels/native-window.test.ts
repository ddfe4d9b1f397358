/**
 * Attention over a sliding window. In a model of one layer the last token sees its window and nothing else, and rotation
 * depends on distances alone: so its logits are those of the window's tokens by themselves. And the bits are the same
 * whatever the chunks, as everywhere.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import { loadModel } from './model/load-model.ts';
import type { LoadedModel } from './model/loaded-model.ts';
import { loadNative } from './native.ts';
import { StepDriver } from './step-driver.fixture.ts';

const native = loadNative();
const story = fileURLToPath(new URL('../../models/stories-5m', import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), 'variator-window-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const prompt = Array.from({ length: 150 }, (_, index) => 300 + ((index * 37) % 900));
const WINDOW = 48;

/** The story model read as a Mistral with this window, all of it or its first layer alone. */
async function mistral(window: number | null, layerCount: number | null): Promise<LoadedModel> {
  const folder = join(scratch, `${window}-${layerCount}`);
  cpSync(story, folder, { recursive: true });
  const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')) as Record<string, unknown>;
  const changed = {
    ...config,
    model_type: 'mistral',
    architectures: ['MistralForCausalLM'],
    sliding_window: window,
  };
  writeFileSync(join(folder, 'config.json'), JSON.stringify(changed));
  const loaded = await loadModel(folder);
  if (layerCount === null) return loaded;
  const { layers, ...tensors } = loaded.tensors;
  return {
    ...loaded,
    shape: { ...loaded.shape, layerCount, windowTokens: loaded.shape.windowTokens.slice(0, layerCount) },
    tensors: { ...tensors, layers: layers.slice(0, layerCount) },
  };
}

async function logitsOf(
  model: LoadedModel,
  tokenIds: readonly number[],
  chunkSize: number,
  linear = 'linear.reference' as const,
) {
  const driver = new StepDriver(native, model, {
    sequenceCount: 1,
    tokensPerSequence: 256,
    threadCount: 2,
    blockSize: 16,
  });
  await driver.prepare(linear);
  const { logits } = await driver.generate([[...tokenIds]], 1, { linear, chunkSize, isLogitsWanted: true });
  driver.close();
  return logits[0] ?? new Float32Array();
}

test('the window is read from config.json, null switches it off', async () => {
  expect([...(await mistral(WINDOW, 1)).shape.windowTokens]).toEqual([WINDOW]);
  expect([...(await mistral(null, 1)).shape.windowTokens]).toEqual([0]);
});

test("of one layer, the last token's logits are those of its window alone", async () => {
  const whole = await logitsOf(await mistral(WINDOW, 1), prompt, 512);
  const alone = await logitsOf(await mistral(null, 1), prompt.slice(-WINDOW), 512);
  const most = Math.max(...alone.map(Math.abs));
  expect(Math.max(...whole.map((value, index) => Math.abs(value - (alone[index] ?? 0)))) / most).toBeLessThan(
    1e-4,
  );
  // One token less would be another answer.
  const shorter = await logitsOf(await mistral(null, 1), prompt.slice(1 - WINDOW), 512);
  expect(
    Math.max(...whole.map((value, index) => Math.abs(value - (shorter[index] ?? 0)))) / most,
  ).toBeGreaterThan(1e-4);
});

test.each([1, 7, 33, 64])('of all layers, chunks of %i give the same bits as one', async (chunkSize) => {
  const model = await mistral(WINDOW, null);
  const whole = await logitsOf(model, prompt, 512);
  expect(await logitsOf(model, prompt, chunkSize)).toEqual(whole);
  expect(await logitsOf(await mistral(null, null), prompt, 512)).not.toEqual(whole);
});
