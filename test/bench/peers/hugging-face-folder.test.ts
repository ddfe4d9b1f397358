import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import {
  type Plan,
  type Tensor,
  type Value,
  writeGguf,
} from '../../../packages/kernels/model/gguf-writer.fixture.ts';
import { loadModel } from '../../../packages/kernels/model/load-model.ts';
import { loadNative } from '../../../packages/kernels/native.ts';
import { formats, randomBlocks } from '../../../packages/kernels/quantised-blocks.fixture.ts';
import { StepDriver } from '../../../packages/kernels/step-driver.fixture.ts';
import { writeHuggingFaceFolder } from './hugging-face-folder.ts';

const scratch = mkdtempSync(join(tmpdir(), 'variator-folder-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const HIDDEN = 64;
const TYPES = { F32: 0, Q4_0: 2, Q8_0: 8, BF16: 30 } as const;

/** A Llama of two layers, 2 heads of 32 and 1 for keys, weights random in the type. */
function randomLlama(type: 'BF16' | 'Q4_0' | 'Q8_0'): Plan {
  let seed = 7;
  const format = formats[type];
  if (format === undefined) throw new Error(type);
  const matrix = (name: string, rows: number, columns: number): Tensor => {
    seed += 1;
    const data = randomBlocks(format, seed, rows * columns);
    return { name, dimensions: [columns, rows], type: TYPES[type], byteLength: data.length, data };
  };
  const vector = (name: string): Tensor => {
    const data = Buffer.from(Float32Array.from({ length: HIDDEN }, (_, i) => 0.75 + (i % 5) / 8).buffer);
    return { name, dimensions: [HIDDEN], type: TYPES.F32, byteLength: data.length, data };
  };
  const layers = ['blk.0', 'blk.1'].flatMap((layer) => [
    vector(`${layer}.attn_norm.weight`),
    matrix(`${layer}.attn_q.weight`, 64, HIDDEN),
    matrix(`${layer}.attn_k.weight`, 32, HIDDEN),
    matrix(`${layer}.attn_v.weight`, 32, HIDDEN),
    matrix(`${layer}.attn_output.weight`, HIDDEN, 64),
    vector(`${layer}.ffn_norm.weight`),
    matrix(`${layer}.ffn_gate.weight`, 96, HIDDEN),
    matrix(`${layer}.ffn_up.weight`, 96, HIDDEN),
    matrix(`${layer}.ffn_down.weight`, HIDDEN, 96),
  ]);
  return {
    version: 3,
    metadata: new Map<string, Value>([
      ['general.architecture', 'llama'],
      ['llama.block_count', 2],
      ['llama.context_length', 128],
      ['llama.embedding_length', HIDDEN],
      ['llama.feed_forward_length', 96],
      ['llama.attention.head_count', 2],
      ['llama.attention.head_count_kv', 1],
      ['llama.attention.layer_norm_rms_epsilon', { float: 2 ** -17 }],
      ['llama.rope.freq_base', { float: 100_000 }],
      ['tokenizer.ggml.model', 'gpt2'],
      ['tokenizer.ggml.pre', 'smollm'],
      ['tokenizer.ggml.tokens', ['<end>', '<user>', 'a', 'b', 'ab']],
      ['tokenizer.ggml.token_type', [3, 4, 1, 1, 1]],
      ['tokenizer.ggml.merges', ['a b']],
      ['tokenizer.ggml.eos_token_id', 0],
      ['tokenizer.chat_template', 'TEMPLATE'],
    ]),
    tensors: [matrix('token_embd.weight', 5, HIDDEN), vector('output_norm.weight'), ...layers],
  };
}

async function logitsOf(path: string): Promise<Float32Array> {
  const options = { sequenceCount: 1, tokensPerSequence: 32, threadCount: 1, blockSize: 16 };
  const driver = new StepDriver(loadNative(), await loadModel(path), options);
  const tokenIds = [2, 3, 4, 1, 2, 2, 3, 4, 0, 3, 1, 2];
  const { logits } = await driver.step([{ sequence: 0, tokenIds, isSampled: true }], {
    linear: 'linear.reference',
    isLogitsWanted: true,
  });
  driver.close();
  return logits ?? new Float32Array();
}

for (const [type, most] of [
  ['BF16', 1e-4],
  ['Q8_0', 0.05],
  ['Q4_0', 0.05],
] as const) {
  test(`a Llama of ${type} written as a folder computes what the file does`, async () => {
    const file = writeGguf(scratch, type, randomLlama(type));
    const folder = join(scratch, `${type}-folder`);
    const model = await loadModel(file);
    writeHuggingFaceFolder(model, folder);
    const written = await loadModel(folder);
    expect(written.tokenizer.eosTokenIds).toEqual(model.tokenizer.eosTokenIds);
    expect(written.tokenizer.chatTemplate).toBe('TEMPLATE');
    const [expected, logits] = [await logitsOf(file), await logitsOf(folder)];
    const size = Math.max(...expected.map(Math.abs));
    expect(size).toBeGreaterThan(0.1);
    expect(logits).toHaveLength(expected.length);
    for (const [i, value] of expected.entries()) {
      expect(Math.abs(value - (logits[i] ?? Number.NaN)) / size).toBeLessThan(most);
    }
  });
}
