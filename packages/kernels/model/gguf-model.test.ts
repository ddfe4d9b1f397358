import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Tokenizer } from '@huggingface/tokenizers';
import { afterAll, describe, expect, test } from 'vitest';
import { f32, type Plan, type Tensor, type Value, writeGguf } from './gguf-writer.fixture.ts';
import { loadModel } from './load-model.ts';
import { ModelError } from './model-error.ts';
import { matrix, tiny, tinyQwenMoe, vector } from './tiny-gguf.fixture.ts';

const scratch = mkdtempSync(join(tmpdir(), 'variator-gguf-'));
afterAll(() => rmSync(scratch, { recursive: true }));

const write = (name: string, plan: Plan): string => writeGguf(scratch, name, plan);

function edited(name: string, edit: (plan: Plan) => void): string {
  const plan = tiny();
  edit(plan);
  return write(name, plan);
}

test('a llama of one layer is read with shape, tensors and a tied head', async () => {
  const model = await loadModel(edited('tiny', () => {}));
  expect(model.modelId).toBe('tiny');
  expect(model.shape).toMatchObject({
    layerCount: 1,
    hiddenSize: 64,
    intermediateSize: 96,
    headCount: 2,
    kvHeadCount: 1,
    headSize: 32,
    vocabularySize: 5,
    maxPositionCount: 128,
    rmsNormEpsilon: 2 ** -17,
    isRopeInterleaved: true,
  });
  expect(model.tensors.head).toBe(model.tensors.embedding);
  expect(model.tensors.layers[0]?.k).toMatchObject({
    dtype: 'Q8_0',
    rows: 32,
    columns: 64,
    byteLength: 2_176,
  });
  expect(model.tensors.layers[0]?.down).toMatchObject({ dtype: 'Q4_0', rows: 64, columns: 96 });
  expect(model.tensors.embedding.offset % 32).toBe(0);
});

test('version 2 is read as version 3', async () => {
  const [second, third] = await Promise.all(
    [2, 3].map((version) =>
      loadModel(
        edited(`version ${version}`, (plan) => {
          plan.version = version;
        }),
      ),
    ),
  );
  expect(second?.modelHash).toBe(third?.modelHash);
});

test('an untied head, rope divisors and biases are taken', async () => {
  const divisors = Buffer.concat(Array.from({ length: 16 }, (_, index) => f32(index + 1)));
  const model = await loadModel(
    edited('extras', (plan) => {
      plan.tensors.push(
        matrix('output.weight', 5, 64),
        { ...vector('rope_freqs.weight', 16), data: divisors },
        vector('blk.0.attn_q.bias', 64),
      );
    }),
  );
  expect(model.tensors.head).not.toBe(model.tensors.embedding);
  expect(model.tensors.layers[0]?.qBias?.columns).toBe(64);
  expect(model.shape.ropeInverseFrequencies[0]).toBe(1);
  expect(model.shape.ropeInverseFrequencies[1]).toBeCloseTo(10_000 ** (-2 / 32) / 2, 6);
});

describe('a mixture of experts', () => {
  const moe = (name: string, edit: (plan: Plan) => void) => {
    const plan = tinyQwenMoe();
    edit(plan);
    return loadModel(write(`moe ${name}`, plan));
  };

  test('is cut into its experts', async () => {
    const { architecture, shape, tensors } = await moe('whole', () => {});
    expect(architecture).toBe('qwen3_moe');
    expect(shape.experts).toMatchObject({ expertCount: 3, expertsPerToken: 2, intermediateSize: 32 });
    const [layer] = tensors.layers;
    expect(layer?.experts.map(({ up }) => [up.rows, up.columns, up.byteLength])).toEqual(
      Array(3).fill([32, 64, 2176]),
    );
    const [first, second, third] = layer?.experts ?? [];
    const ends = [first, second].map((one) => (one?.down.offset ?? 0) + (one?.down.byteLength ?? 0));
    expect(ends).toEqual([second?.down.offset, third?.down.offset]);
  });

  const set = (key: string, of: Value) => (plan: Plan) => void plan.metadata.set(`qwen3moe.${key}`, of);
  test.each<[string, (plan: Plan) => void, RegExp]>([
    ['no experts', set('expert_count', 0), /expert_count is missing/],
    ['another count', set('expert_count', 4), /ffn_gate_exps\.weight has the shape \[3,32,64\]; \[4,32,64\]/],
    ['too many a token', set('expert_used_count', 4), /wants 4 experts and may choose among 3/],
    ['sigmoids', set('expert_gating_func', 2), /expert_gating_func is 2; only 1 is computed/],
    ['shared experts', set('expert_shared_count', 1), /expert_shared_count is 1; only 0 is computed/],
    ['groups', set('expert_group_count', 3), /expert_group_count is 3; only 1 is computed/],
    ['a scale', set('expert_weights_scale', { float: 2.5 }), /expert_weights_scale is 2\.5; only 1/],
    ['weights as they are', set('expert_weights_norm', false), /only normalised weights/],
  ])('with %s is refused', async (name, edit, sentence) => {
    await expect(moe(name, edit)).rejects.toThrow(sentence);
  });
});

test('the tokenizer becomes a tokenizer.json with its special tokens', async () => {
  const { tokenizer } = await loadModel(edited('tokens', () => {}));
  expect(tokenizer.chatTemplate).toBe('TEMPLATE');
  expect(tokenizer.bosTokenId).toBe(null);
  expect(tokenizer.eosTokenIds).toEqual([0]);
  expect(tokenizer.tokenizerConfig).toMatchObject({ eos_token: '<end>', bos_token: null });
  expect(tokenizer.tokenizerJson).toMatchObject({
    model: { type: 'BPE', vocab: { '<end>': 0, '<user>': 1, a: 2, b: 3, ab: 4 }, merges: [['a', 'b']] },
    added_tokens: [
      { id: 0, content: '<end>', special: true },
      { id: 1, content: '<user>', special: false },
    ],
    post_processor: null,
  });
});

test('a beginning token is put before raw prompts where the file asks for it', async () => {
  const file = edited('bos', ({ metadata }) => {
    metadata.set('tokenizer.ggml.bos_token_id', 1).set('tokenizer.ggml.add_bos_token', true);
  });
  expect((await loadModel(file)).tokenizer.tokenizerJson.post_processor).toMatchObject({
    single: [{ SpecialToken: { id: '<user>' } }, { Sequence: { id: 'A' } }],
    special_tokens: { '<user>': { ids: [1] } },
  });
});

const upstream = resolve(import.meta.dirname, '../../../../shared/models/stories260K/stories260K.gguf');
if (!existsSync(upstream)) console.warn('SKIPPED: a SentencePiece GGUF (../shared/models is not here)');
test.skipIf(!existsSync(upstream))(
  'a SentencePiece vocabulary cuts and joins text as llama.cpp does',
  async () => {
    const { tokenizer } = await loadModel(upstream);
    const { tokenizerJson, tokenizerConfig } = tokenizer;
    const library = new Tokenizer(tokenizerJson as never, tokenizerConfig as never);
    // What llama.cpp's tokenizer prints for these texts.
    const known: [string, number[]][] = [
      [
        'Once upon a time, there was a little girl.',
        [1, 403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421, 426],
      ],
      ['  two spaces', [1, 410, 410, 259, 424, 414, 262, 427, 412, 331, 419]],
      ['h\u00e9llo \u5927', [1, 270, 485, 306, 414, 410, 232, 167, 170]],
    ];
    for (const [text, ids] of known) {
      expect(library.encode(text).ids).toEqual(ids);
      expect(library.decode(ids, { skip_special_tokens: true })).toBe(text);
    }
    expect(tokenizer.eosTokenIds).toEqual([2]);
  },
);

describe('what cannot be read is named', () => {
  const set = (key: string, of: Value) => (plan: Plan) => void plan.metadata.set(key, of);
  const put = (changes: Partial<Plan>) => (plan: Plan) => void Object.assign(plan, changes);
  const replace = (name: string, changes: Partial<Tensor>) => (plan: Plan) => {
    plan.tensors = plan.tensors.map((tensor) => (tensor.name === name ? { ...tensor, ...changes } : tensor));
  };
  const norm = 'blk.0.attn_norm.weight';
  const cases: [string, (plan: Plan) => void, RegExp][] = [
    ['an architecture', set('general.architecture', 'gemma'), /architecture is "gemma"/],
    ['a version', put({ version: 1 }), /GGUF version 1 is not read/],
    ['big-endian', put({ version: 0x03000000 }), /big-endian/],
    ['experts', set('llama.expert_count', 8), /mixture of experts, which of "llama" is not/],
    ['a split', set('split.count', 3), /one part of a split model/],
    ['a rope scaling', set('llama.rope.scaling.type', 'longrope'), /rope scaling "longrope"/],
    ['a part of the head', set('llama.rope.dimension_count', 16), /rope\.dimension_count is 16/],
    ['a pre-tokenizer', set('tokenizer.ggml.pre', 'gpt-4o'), /pre-tokenizer is "gpt-4o"/],
    ['a count of wrong type', set('llama.block_count', 'many'), /llama\.block_count is not a whole number/],
    ['a count of zero', set('llama.block_count', 0), /llama\.block_count is missing/],
    ['a count beyond reason', set('llama.block_count', 4e9), /llama\.block_count is not a whole number/],
    [
      'an id outside',
      set('tokenizer.ggml.eos_token_id', 5),
      /eos_token_id is not a whole number from 0 to 4/,
    ],
    ['a token twice', set('tokenizer.ggml.tokens', ['a', 'a', 'b', 'c', 'd']), /"a" stands twice/],
    ['fewer types', set('tokenizer.ggml.token_type', [1]), /5 tokens and 1 token types/],
    ['a bad merge', set('tokenizer.ggml.merges', ['ab']), /the merge "ab" is not a pair/],
    ['a vocabulary of another size', set('tokenizer.ggml.tokens', ['a']), /shape|token types/],
    ['an alignment', set('general.alignment', 3), /alignment of 3/],
    ['a tensor type', replace('blk.0.ffn_up.weight', { type: 10 }), /ffn_up\.weight is of type Q2_K/],
    ['an unknown type', replace('blk.0.ffn_up.weight', { type: 99 }), /is of type number 99/],
    ['a ragged row', replace('blk.0.ffn_up.weight', { dimensions: [63, 96] }), /multiples of 32/],
    ['no dimensions', replace(norm, { dimensions: [] }), /claims 0 dimensions/],
    ['a dimension of zero', replace(norm, { dimensions: [0] }), /claims the shape \[0\]/],
    ['a huge tensor', replace(norm, { dimensions: [2 ** 40] }), /ends at byte .*; the file at/],
    ['an impossible tensor', replace(norm, { dimensions: [2 ** 40, 2 ** 40] }), /claims the shape/],
    ['an overlap', replace(norm, { offset: 32 }), /overlaps the one before it/],
    ['an odd offset', replace(norm, { offset: 33 }), /33, which is not a multiple of 32/],
    ['another shape', replace(norm, { dimensions: [32] }), /attn_norm\.weight has the shape \[32\]; \[64\]/],
    ['a stranger', (plan) => plan.tensors.push(vector('blk.0.attn_q_norm.weight', 32)), /has no place/],
    ['a tensor twice', (plan) => plan.tensors.push(vector(norm, 64)), /stands twice/],
    ['a tensor gone', (plan) => void plan.tensors.pop(), /blk\.0\.ffn_down\.weight is missing/],
    ['many tensors', put({ tensorCount: 2n ** 63n }), /tensors; \d+ are the limit/],
    ['more tensors than fit', put({ tensorCount: 1e6 }), /tensors, more than fit/],
    ['many pairs', put({ pairCount: 2n ** 40n }), /metadata pairs; \d+ are the limit/],
  ];
  test.each(cases)('%s', async (name, edit, sentence) => {
    const fault = await loadModel(edited(`bad ${name}`, edit)).catch((error: unknown) => error);
    expect(fault).toBeInstanceOf(ModelError);
    expect(String(fault)).toMatch(sentence);
  });

  test('a file cut anywhere', async () => {
    const whole = readFileSync(edited('whole', () => {}));
    for (let length = 0; length < whole.length; length += 97) {
      const file = join(scratch, 'cut.gguf');
      writeFileSync(file, whole.subarray(0, length));
      await expect(loadModel(file), `cut at ${length}`).rejects.toThrow(ModelError);
    }
  });

  test('a length that lies', async () => {
    const bytes = readFileSync(edited('lies', () => {}));
    bytes.writeBigUInt64LE(2n ** 62n, 24); // the first key's length
    const file = join(scratch, 'lies.gguf');
    writeFileSync(file, bytes);
    await expect(loadModel(file)).rejects.toThrow(/bytes of a metadata key; \d+ are the limit/);
  });
});
