/** Packed weights kept in a file: the same bits from it, and never anything else than what the model says. */
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import { loadModel } from './model/load-model.ts';
import { loadNative } from './native.ts';
import { StepDriver } from './step-driver.fixture.ts';

const native = loadNative();
const linear = 'linear.int8-generic';
const loaded = await loadModel(fileURLToPath(new URL('../../models/stories-5m', import.meta.url)));
const scratch = mkdtempSync(join(tmpdir(), 'variator-packed-file-'));
afterAll(() => rmSync(scratch, { recursive: true }));

/** Logits of one step, and whether the panels came from the file. */
async function logitsWith(file: string | null, key = 'own', kind: 'int8' | 'bf16' = 'int8') {
  const options = { sequenceCount: 1, tokensPerSequence: 32, threadCount: 1, blockSize: 16 };
  const driver = new StepDriver(native, loaded, options);
  const id = `linear.${kind}-generic` as const;
  const { isFromCache } = await native.prepareLinear(driver.model, id, file, file === null ? null : key);
  const chunk = { sequence: 0, tokenIds: [5, 6, 7], isSampled: true };
  const { logits } = await driver.step([chunk], { linear: id, isLogitsWanted: true });
  driver.close();
  return { isFromCache, logits };
}

test('a file that a start has kept serves the next one with the same bits, and panels lie on a border of 2 MiB', async () => {
  const file = join(scratch, 'kept.panels');
  const without = await logitsWith(null);
  const first = await logitsWith(file);
  const second = await logitsWith(file);
  expect([without, first, second].map(({ isFromCache }) => isFromCache)).toEqual([false, false, true]);
  expect(first.logits).toEqual(without.logits);
  expect(second.logits).toEqual(without.logits);
  const model = native.openModel(loaded.shape, loaded.tensors, 1);
  const { packedBytes } = await native.prepareLinear(model, linear, null, null);
  native.closeModel(model);
  expect(statSync(file).size).toBe(2 ** 21 + packedBytes);
  expect(readdirSync(scratch)).toEqual(['kept.panels']);
});

const damages: [string, (file: string) => void][] = [
  ['a bit among the panels', (file) => change(file, 2 ** 21 + 12_345)],
  ['its last byte', (file) => change(file, statSync(file).size - 1)],
  ['its header', (file) => change(file, 30)],
  ['its end cut off', (file) => truncateSync(file, statSync(file).size - 64)],
  ['its end grown', (file) => truncateSync(file, statSync(file).size + 64)],
  ['no content', (file) => truncateSync(file, 0)],
];
function change(file: string, at: number): void {
  const bytes = readFileSync(file);
  bytes[at] = (bytes[at] ?? 0) ^ 4;
  writeFileSync(file, bytes);
}

test.each(damages)('a file damaged in %s is not used, and made anew', async (_, damage) => {
  const file = join(scratch, 'damaged.panels');
  const { logits } = await logitsWith(file);
  damage(file);
  const again = await logitsWith(file);
  expect(again).toEqual({ isFromCache: false, logits });
  expect((await logitsWith(file)).isFromCache).toBe(true);
});

test('a file of other weights or other panels is not used', async () => {
  const file = join(scratch, 'foreign.panels');
  const { logits } = await logitsWith(file, 'another model');
  expect(await logitsWith(file)).toEqual({ isFromCache: false, logits });
  expect((await logitsWith(file, 'own', 'bf16')).isFromCache).toBe(false);
  expect(await logitsWith(file)).toEqual({ isFromCache: false, logits });
  copyFileSync(file, join(scratch, 'copy.panels'));
  expect(await logitsWith(join(scratch, 'copy.panels'))).toEqual({ isFromCache: true, logits });
});

test('where nothing can be written the model is packed all the same, and no part stays behind', async () => {
  const { logits } = await logitsWith(null);
  const folder = join(scratch, 'taken.panels');
  mkdirSync(join(folder, 'inside'), { recursive: true });
  expect(await logitsWith(folder)).toEqual({ isFromCache: false, logits });
  expect(await logitsWith(join(scratch, 'nowhere', 'x.panels'))).toEqual({ isFromCache: false, logits });
  expect(readdirSync(scratch).filter((name) => /\.\d+$/.test(name))).toEqual([]);
});
