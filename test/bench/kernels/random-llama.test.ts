import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { loadModel } from '../../../packages/kernels/model/load-model.ts';
import { loadNative } from '../../../packages/kernels/native.ts';
import { StepDriver } from '../../../packages/kernels/step-driver.fixture.ts';
import { writeRandomLlama } from './random-llama.ts';

test('a random Llama is one that our loader reads and whose logits are finite and differ', async () => {
  const scratch = mkdtempSync(join(tmpdir(), 'variator-random-llama-'));
  const file = join(scratch, 'random.gguf');
  const shape = {
    hidden: 64,
    intermediate: 96,
    layerCount: 2,
    headCount: 4,
    kvHeadCount: 2,
    vocabularySize: 300,
  };
  writeRandomLlama(file, shape);
  const model = await loadModel(file);
  expect(model.shape).toMatchObject({
    hiddenSize: 64,
    intermediateSize: 96,
    layerCount: 2,
    headCount: 4,
    kvHeadCount: 2,
    vocabularySize: 300,
  });
  expect(model.tensors.head).not.toBe(model.tensors.embedding);
  const options = { sequenceCount: 1, tokensPerSequence: 16, threadCount: 1, blockSize: 16 };
  const driver = new StepDriver(loadNative(), model, options);
  const { logits } = await driver.step([{ sequence: 0, tokenIds: [1, 270, 12], isSampled: true }], {
    linear: 'linear.reference',
    isLogitsWanted: true,
  });
  driver.close();
  rmSync(scratch, { recursive: true });
  expect(new Set(logits).size).toBeGreaterThan(250);
  expect(logits?.every(Number.isFinite)).toBe(true);
});
