import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { kvPlan } from '../kv-plan.ts';
import { activeMatrices } from './active-weights.ts';
import { loadModel } from './load-model.ts';
import { ModelError } from './model-error.ts';
import { namedTensors } from './model-hash.ts';

const repository = resolve(import.meta.dirname, '../../..');
const golden = resolve(repository, '../shared/golden');
const isGoldenThere = existsSync(golden);
if (!isGoldenThere) console.warn('SKIPPED: golden models (../shared/golden is not here)');
const story = join(repository, 'models', 'stories-5m');

const scratch = mkdtempSync(join(tmpdir(), 'variator-model-'));
afterAll(() => rmSync(scratch, { recursive: true }));

/** A copy of the story model in which some files are changed: a string or Buffer replaces, null removes. */
function changed(name: string, files: Record<string, string | Buffer | null>, from = story): string {
  const folder = join(scratch, name);
  cpSync(from, folder, { recursive: true, filter: (source) => !source.endsWith('golden.json') });
  for (const [file, content] of Object.entries(files)) {
    rmSync(join(folder, file), { force: true });
    if (content !== null) writeFileSync(join(folder, file), content);
  }
  return folder;
}

const storyConfig = JSON.parse(readFileSync(join(story, 'config.json'), 'utf8')) as Record<string, unknown>;
const configWith = (changes: Record<string, unknown>) => JSON.stringify({ ...storyConfig, ...changes });
const storyWeights = readFileSync(join(story, 'model.safetensors'));
const headerBytes = Number(storyWeights.readBigUInt64LE());
type Header = Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;

/** The story weights under an edited header. */
function weightsWith(edit: (header: Header) => void): Buffer {
  const header = JSON.parse(storyWeights.toString('utf8', 8, 8 + headerBytes)) as Header;
  edit(header);
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, storyWeights.subarray(8 + headerBytes)]);
}
const normName = 'model.norm.weight';
function entryOf(header: Header, name: string) {
  const entry = header[name];
  if (entry === undefined) throw new Error(`the story model has no ${name}`);
  return entry;
}

test('the story model is read with shape, tokenizer, template and generation settings', async () => {
  const model = await loadModel(story);
  expect(model.modelId).toBe('stories-5m');
  expect(model.modelHash).toMatch(/^[0-9a-f]{16}$/);
  expect(model.architecture).toBe('llama');
  expect(model.shape).toMatchObject({
    layerCount: 6,
    hiddenSize: 256,
    intermediateSize: 704,
    headCount: 8,
    kvHeadCount: 4,
    headSize: 32,
    vocabularySize: 2_048,
    maxPositionCount: 2_048,
    rmsNormEpsilon: 1e-5,
    isRopeInterleaved: false,
  });
  expect(model.tensors.head).toBe(model.tensors.embedding);
  expect(model.tensors.embedding).toMatchObject({ dtype: 'F16', rows: 2_048, columns: 256 });
  expect(model.tokenizer.chatTemplate).toContain('<|im_start|>');
  expect(model.tokenizer.bosTokenId).toBe(0);
  expect(model.tokenizer.eosTokenIds).toEqual([0, 2]);
  expect(model.generation).toEqual({ temperature: 0.7, topP: null, topK: 40 });
});

test('every tensor lies inside its file at the size its type and shape ask for', async () => {
  const { tensors } = await loadModel(story);
  const parameters = namedTensors({ ...tensors, head: tensors.finalNorm }).reduce((sum, [, tensor]) => {
    expect(tensor.byteLength).toBe(tensor.rows * tensor.columns * 2);
    expect(tensor.offset + tensor.byteLength).toBeLessThanOrEqual(storyWeights.length);
    return sum + tensor.rows * tensor.columns;
  }, -256);
  expect(8 + headerBytes + parameters * 2).toBe(storyWeights.length);
});

describe('the hash', () => {
  test('is that of the content, wherever the folder lies', async () => {
    const copy = changed('copy', {});
    expect((await loadModel(copy)).modelHash).toBe((await loadModel(story)).modelHash);
  });

  test('changes with a weight and with a setting', async () => {
    const last = Buffer.from(storyWeights);
    last[last.length - 1] = (last.at(-1) ?? 0) ^ 1;
    const hashes = await Promise.all(
      [
        story,
        changed('other-weight', { 'model.safetensors': last }),
        changed('other-eps', { 'config.json': configWith({ rms_norm_eps: 1e-6 }) }),
      ].map(async (folder) => (await loadModel(folder)).modelHash),
    );
    expect(new Set(hashes).size).toBe(3);
  });
});

describe.skipIf(!isGoldenThere)('the golden models', () => {
  test.each([
    ['llama-gqa', 'llama', { kvHeadCount: 2, headSize: 16 }],
    ['llama-tied', 'llama', { kvHeadCount: 6, headSize: 16 }],
    ['qwen2-bias', 'qwen2', { kvHeadCount: 2, headSize: 16 }],
    ['qwen3-qknorm', 'qwen3', { kvHeadCount: 2, headSize: 32 }],
  ])('%s is read as %s', async (folder, architecture, shape) => {
    const model = await loadModel(join(golden, folder));
    expect(model.architecture).toBe(architecture);
    expect(model.shape).toMatchObject({ ...shape, layerCount: 3, hiddenSize: 96, vocabularySize: 512 });
    expect(model.tensors.head === model.tensors.embedding).toBe(folder !== 'llama-gqa');
    const [layer] = model.tensors.layers;
    expect(layer?.qBias?.columns ?? null).toBe(architecture === 'qwen2' ? 96 : null);
    expect(layer?.kBias?.columns ?? null).toBe(architecture === 'qwen2' ? 32 : null);
    expect(layer?.qNorm?.columns ?? null).toBe(architecture === 'qwen3' ? 32 : null);
    expect(model.tokenizer).toMatchObject({ bosTokenId: 1, eosTokenIds: [2] });
    expect(model.generation).toEqual({ temperature: null, topP: null, topK: null });
  });

  describe('deepseek-v3', () => {
    const from = join(golden, 'deepseek-v3');
    const config = isGoldenThere ? JSON.parse(readFileSync(join(from, 'config.json'), 'utf8')) : {};
    const v3With = (name: string, changes: Record<string, unknown>) =>
      loadModel(changed(`v3 ${name}`, { 'config.json': JSON.stringify({ ...config, ...changes }) }, from));

    test('is read with its latents, its shared expert and its dense first layer', async () => {
      const { architecture, shape, tensors } = await loadModel(from);
      expect(architecture).toBe('deepseek_v3');
      expect(shape).toMatchObject({ headCount: 4, kvHeadCount: 4, headSize: 48, isRopeInterleaved: true });
      expect(shape.ropeInverseFrequencies).toHaveLength(8);
      expect(shape.latent).toEqual({
        queryRank: 48,
        keyValueRank: 32,
        ropeSize: 16,
        valueHeadSize: 32,
        scoreFactor: 1,
        isAbsorbed: true,
      });
      expect(shape.experts).toEqual({
        expertCount: 8,
        expertsPerToken: 2,
        intermediateSize: 64,
        sharedIntermediateSize: 64,
        scoring: 'sigmoid',
        groupCount: 4,
        groupsPerToken: 2,
        isNormalised: true,
        scale: 2.5,
      });
      const [dense, sparse] = tensors.layers;
      expect(dense).toMatchObject({ k: null, v: null, gate: { rows: 256 }, router: null, experts: [] });
      expect(sparse).toMatchObject({ gate: { rows: 64 }, router: { rows: 8 }, routerBias: { columns: 8 } });
      expect(sparse?.latent?.keyValueUp).toMatchObject({ rows: 4 * (32 + 32), columns: 32 });
      const names = namedTensors(tensors).map(([name]) => name);
      expect(new Set(names).size).toBe(names.length);
      expect(names).toContain('layers.2.keyValueNorm');
    });

    test('counts active parameters and the cache by its own sizes', async () => {
      const { shape, tensors } = await loadModel(from);
      const attention = 48 * 96 + 192 * 48 + 48 * 96 + 256 * 32 + 96 * 128;
      const active = activeMatrices(shape, tensors).reduce(
        (sum, { rows, columns }) => sum + rows * columns,
        0,
      );
      expect(active).toBe(3 * attention + 3 * 256 * 96 + 2 * (8 * 96 + 3 * 3 * 64 * 96) + 512 * 96);
      const { kvBytesPerToken } = kvPlan(shape, { kvMemoryBytes: 1e8, maxModelLenTokens: null });
      expect(kvBytesPerToken).toBe(3 * (32 + 16 + 32) * 4);
      const expanded = { ...shape, latent: shape.latent && { ...shape.latent, isAbsorbed: false } };
      expect(kvPlan(expanded, { kvMemoryBytes: 1e8, maxModelLenTokens: null }).kvBytesPerToken).toBe(
        3 * 4 * (48 + 32) * 4,
      );
    });

    test('a YaRN rope scales scores by the square of its factor, and angles by the ratio of both', async () => {
      const yarn = { rope_type: 'yarn', rope_theta: 1e4, factor: 40, original_max_position_embeddings: 256 };
      const of = async (name: string, more: Record<string, unknown>) => {
        const { shape } = await v3With(name, { rope_parameters: { ...yarn, ...more } });
        return [shape.latent?.scoreFactor, shape.ropeAttentionFactor, shape.maxPositionCount];
      };
      const mscale = (scale: number) => 0.1 * scale * Math.log(40) + 1;
      expect(await of('yarn both', { mscale: 1, mscale_all_dim: 1 })).toEqual([mscale(1) ** 2, 1, 10_240]);
      expect(await of('yarn other', { mscale: 0.7, mscale_all_dim: 1.2 })).toEqual([
        mscale(1.2) ** 2,
        mscale(0.7) / mscale(1.2),
        10_240,
      ]);
      expect(await of('yarn alone', {})).toEqual([1, mscale(1), 10_240]);
    });

    test('layers that predict further tokens are passed over', async () => {
      // Two of three layers are the model's; the third is then such a layer.
      const { tensors } = await v3With('next', { num_hidden_layers: 2, num_nextn_predict_layers: 1 });
      expect(tensors.layers).toHaveLength(2);
      await expect(v3With('no next', { num_hidden_layers: 2, num_nextn_predict_layers: 0 })).rejects.toThrow(
        /model\.layers\.2\.\S+ has no place/,
      );
    });

    test.each([
      ['softmax scores', { scoring_func: 'softmax' }, /"scoring_func" is softmax; only sigmoid/],
      ['another choice', { topk_method: 'group_limited_greedy' }, /"topk_method" is group_limited_greedy/],
      ['sparse layers apart', { moe_layer_freq: 2 }, /"moe_layer_freq" is 2; only 1/],
      ['groups that do not divide', { n_group: 3 }, /8 experts cannot lie in 3 groups with 2 a token/],
      ['more groups than there are', { topk_group: 5 }, /cannot lie in 4 groups with 5 a token/],
      ['more experts than the groups hold', { topk_group: 1, num_experts_per_tok: 3 }, /may choose among 2/],
      [
        'shared key heads',
        { num_key_value_heads: 2 },
        /4 attention heads have latent keys of their own, not 2/,
      ],
      ['biases', { attention_bias: true }, /"attention_bias" is true; biases beside latents/],
      ['an odd rotated part', { qk_rope_head_dim: 15 }, /heads of 32 and 15 rotated elements/],
      [
        'another latent',
        { kv_lora_rank: 31 },
        /kv_a_proj_with_mqa\.weight has the shape \[48,96\]; \[47,96\]/,
      ],
      ['queries without a latent', { q_lora_rank: null }, /self_attn\.q_proj\.weight is missing/],
      [
        'two shared experts',
        { n_shared_experts: 2 },
        /shared_experts\.gate_proj\.weight has the shape \[64,96\]/,
      ],
      ['no shared expert', { n_shared_experts: 0 }, /shared_experts\.\S+ has no place/],
      ['more dense layers', { first_k_dense_replace: 2 }, /layers\.1\.mlp\.gate_proj\.weight is missing/],
    ])('with %s in its config is refused', async (name, changes, sentence) => {
      await expect(v3With(name, changes)).rejects.toThrow(sentence);
    });
  });

  describe('qwen3-moe', () => {
    const from = join(golden, 'qwen3-moe');
    const config = isGoldenThere ? JSON.parse(readFileSync(join(from, 'config.json'), 'utf8')) : {};
    const moeWith = (changes: Record<string, unknown>) => ({
      'config.json': JSON.stringify({ ...config, ...changes }),
    });

    test('is read with its experts', async () => {
      const { architecture, shape, tensors } = await loadModel(from);
      expect(architecture).toBe('qwen3_moe');
      expect(shape.experts).toEqual({
        expertCount: 8,
        expertsPerToken: 2,
        intermediateSize: 64,
        sharedIntermediateSize: 0,
        scoring: 'softmax',
        groupCount: 1,
        groupsPerToken: 1,
        isNormalised: true,
        scale: 1,
      });
      const [layer] = tensors.layers;
      expect(layer).toMatchObject({ gate: null, up: null, down: null, routerBias: null });
      expect(layer?.router).toMatchObject({ rows: 8, columns: 96 });
      expect(layer?.experts.map(({ down }) => [down.rows, down.columns])).toEqual(Array(8).fill([96, 64]));
      expect(layer?.qNorm?.columns).toBe(32);
      const names = namedTensors(tensors).map(([name]) => name);
      expect(new Set(names).size).toBe(3 + 3 * (9 + 8 * 3));
    });

    test('counts as active what one token multiplies with', async () => {
      const { shape, tensors } = await loadModel(from);
      const active = activeMatrices(shape, tensors);
      const attention = 96 * (192 + 64 + 64) + 192 * 96;
      expect(active.reduce((sum, { rows, columns }) => sum + rows * columns, 0)).toBe(
        3 * (attention + 8 * 96 + 2 * 3 * 64 * 96) + 512 * 96,
      );
    });

    test.each([
      ['a layer without experts', { mlp_only_layers: [1] }, /layers\.1\.mlp\.gate_proj\.weight is missing/],
      ['every second layer', { decoder_sparse_step: 2 }, /layers\.0\.mlp\.gate_proj\.weight is missing/],
      ['more than there are', { num_experts_per_tok: 9 }, /wants 9 experts and may choose among 8/],
      ['other experts', { num_local_experts: 9 }, /mlp\.gate\.weight has the shape \[8,96\]; \[9,96\]/],
      ['fewer experts', { num_experts: 7 }, /mlp\.gate\.weight has the shape \[8,96\]; \[7,96\]/],
      ['no experts', { num_experts: 0 }, /"num_experts" is wrong/],
      ['experts of another size', { moe_intermediate_size: 63 }, /gate_proj\.weight has the shape \[64,96\]/],
    ])('with %s in its config is refused where the weights differ', async (name, changes, sentence) => {
      await expect(loadModel(changed(`moe ${name}`, moeWith(changes), from))).rejects.toThrow(sentence);
    });

    test('a window is one of all layers', async () => {
      const folder = changed('moe window', moeWith({ use_sliding_window: true, sliding_window: 40 }), from);
      expect([...(await loadModel(folder)).shape.windowTokens]).toEqual([40, 40, 40]);
    });
  });

  test('a llama3 rope is scaled alike in the old and the new style of config.json', async () => {
    const from = join(golden, 'llama-gqa');
    const { rope_parameters, ...rest } = JSON.parse(readFileSync(join(from, 'config.json'), 'utf8'));
    const { rope_theta, rope_type, ...scaling } = rope_parameters;
    const config = { ...rest, rope_theta, rope_scaling: { type: rope_type, ...scaling } };
    const old = changed('old-rope', { 'config.json': JSON.stringify(config) }, from);
    expect((await loadModel(old)).shape.ropeInverseFrequencies).toEqual(
      (await loadModel(from)).shape.ropeInverseFrequencies,
    );
  });
});

describe('what a folder may say', () => {
  test("chat_template.jinja overrides the tokenizer's, and special_tokens_map.json fills gaps", async () => {
    const folder = changed('template', {
      'chat_template.jinja': 'NEW',
      'tokenizer_config.json': JSON.stringify({ chat_template: 'OLD', bos_token: null }),
      'special_tokens_map.json': JSON.stringify({
        bos_token: { content: '<|im_start|>', lstrip: false },
        eos_token: '<|im_end|>',
      }),
    });
    const { tokenizer } = await loadModel(folder);
    expect(tokenizer.chatTemplate).toBe('NEW');
    expect(tokenizer.tokenizerConfig).toMatchObject({
      chat_template: 'NEW',
      bos_token: '<|im_start|>',
      eos_token: '<|im_end|>',
      pad_token: null,
    });
    expect(tokenizer.bosTokenId).toBe(1);
  });

  test('of several named templates the default one is used', async () => {
    const chat_template = [
      { name: 'tool_use', template: 'TOOLS' },
      { name: 'default', template: 'PLAIN' },
    ];
    const folder = changed('templates', { 'tokenizer_config.json': JSON.stringify({ chat_template }) });
    expect((await loadModel(folder)).tokenizer.chatTemplate).toBe('PLAIN');
  });

  test('do_sample false switches the stored sampling settings off', async () => {
    const generation = { do_sample: false, temperature: 0.6, top_p: 0.9 };
    const folder = changed('greedy', { 'generation_config.json': JSON.stringify(generation) });
    expect((await loadModel(folder)).generation).toEqual({ temperature: null, topP: null, topK: null });
  });

  test.each([
    ['an explicit window', { sliding_window: 512 }, 512],
    ["transformers' default window of 4096", { max_position_embeddings: 8_192 }, 4_096],
    ['a window switched off', { sliding_window: null, max_position_embeddings: 8_192 }, 0],
  ])('Mistral with %s attends over it, as far as the model was made for', async (name, keys, window) => {
    const config = { model_type: 'mistral', architectures: ['MistralForCausalLM'], ...keys };
    const folder = changed(`mistral ${name}`, { 'config.json': configWith(config) });
    const { shape } = await loadModel(folder);
    expect(new Set(shape.windowTokens)).toEqual(new Set([window]));
    expect(shape.maxPositionCount).toBe(JSON.parse(configWith(config)).max_position_embeddings);
  });

  test('shards named by an index are read as one', async () => {
    const index = { weight_map: { [normName]: 'model-00001-of-00001.safetensors' } };
    const folder = changed('shards', {
      'model.safetensors': null,
      'model-00001-of-00001.safetensors': storyWeights,
      'model.safetensors.index.json': JSON.stringify(index),
    });
    expect((await loadModel(folder)).modelHash).toBe((await loadModel(story)).modelHash);
  });

  test('a hub cache is opened at its main revision and keeps the name of its repository', async () => {
    const cache = join(scratch, 'models--someone--stories');
    mkdirSync(join(cache, 'refs'), { recursive: true });
    writeFileSync(join(cache, 'refs', 'main'), 'abc123\n');
    cpSync(story, join(cache, 'snapshots', 'abc123'), { recursive: true });
    expect((await loadModel(cache)).modelId).toBe('someone/stories');
    expect((await loadModel(join(cache, 'snapshots', 'abc123'))).modelId).toBe('someone/stories');
  });
});

describe('damage is named with its file', () => {
  const cases: [string, Record<string, string | Buffer | null>, RegExp][] = [
    ['broken JSON', { 'config.json': '{"model_type":' }, /config\.json: it is not valid JSON/],
    ['a list for an object', { 'config.json': '[]' }, /config\.json: it holds no JSON object/],
    ['no config', { 'config.json': null }, /config\.json: this file is missing/],
    ['no tokenizer', { 'tokenizer.json': null }, /tokenizer\.json: this file is missing/],
    ['no weights', { 'model.safetensors': null }, /neither model\.safetensors nor/],
    ['a missing key', { 'config.json': configWith({ hidden_size: undefined }) }, /"hidden_size" is missing/],
    ['a text for a number', { 'config.json': configWith({ hidden_size: 'big' }) }, /"hidden_size" is wrong/],
    [
      'a huge count',
      { 'config.json': configWith({ num_hidden_layers: 1e9 }) },
      /"num_hidden_layers" is wrong/,
    ],
    [
      'an unknown model',
      { 'config.json': configWith({ model_type: 'mamba' }) },
      /LlamaForCausalLM is not read/,
    ],
    [
      'a foreign class',
      { 'config.json': configWith({ architectures: ['Phi3ForCausalLM'] }) },
      /Phi3ForCausalLM/,
    ],
    ['its own code', { 'config.json': configWith({ auto_map: { AutoModel: 'm.M' } }) }, /code of its own/],
    [
      'quantised weights',
      { 'config.json': configWith({ quantization_config: { quant_method: 'awq' } }) },
      /quantised by awq/,
    ],
    [
      'an unknown rope',
      { 'config.json': configWith({ rope_parameters: { rope_type: 'longrope', factor: 4 } }) },
      /rope scaling "longrope" is not computed/,
    ],
    [
      'half a rope',
      { 'config.json': configWith({ rope_parameters: { rope_type: 'linear' } }) },
      /the rope's "factor" is missing/,
    ],
    [
      'a rope per layer type',
      { 'config.json': configWith({ rope_parameters: { full_attention: { rope_type: 'default' } } }) },
      /differs from layer to layer/,
    ],
    ['another activation', { 'config.json': configWith({ hidden_act: 'gelu' }) }, /"hidden_act" is gelu/],
    ['heads that do not divide', { 'config.json': configWith({ num_key_value_heads: 3 }) }, /cannot share 3/],
    [
      'a shape that does not fit',
      { 'config.json': configWith({ intermediate_size: 705 }) },
      /gate_proj\.weight has the shape \[704,256\]; \[705,256\] is needed/,
    ],
    [
      'a missing layer',
      { 'config.json': configWith({ num_hidden_layers: 7 }) },
      /the tensor model\.layers\.6\.input_layernorm\.weight is missing/,
    ],
    [
      'a layer too many',
      { 'config.json': configWith({ num_hidden_layers: 5 }) },
      /model\.layers\.5\.\S+ has no place/,
    ],
    ['an empty file', { 'model.safetensors': '' }, /model\.safetensors: it ends at byte 0/],
    ['a truncated header', { 'model.safetensors': storyWeights.subarray(0, 500) }, /inside its header/],
    [
      'truncated weights',
      { 'model.safetensors': storyWeights.subarray(0, -100) },
      /ends at byte .*; the file at/,
    ],
    ['trailing bytes', { 'model.safetensors': Buffer.concat([storyWeights, storyWeights]) }, /bytes follow/],
    ['a huge header', { 'model.safetensors': Buffer.alloc(64, 0xff) }, /the header claims/],
    [
      'a size that lies',
      {
        'model.safetensors': weightsWith((header) => {
          entryOf(header, normName).shape = [255];
        }),
      },
      /model\.norm\.weight of shape \[255\] needs 510 bytes and is given 512/,
    ],
    [
      'an overlap',
      {
        'model.safetensors': weightsWith((header) => {
          entryOf(header, normName).data_offsets = [0, 512];
        }),
      },
      /overlaps|hole/,
    ],
    [
      'an offset beyond the file',
      {
        'model.safetensors': weightsWith((header) => {
          entryOf(header, normName).data_offsets = [1e12, 1e12 + 512];
        }),
      },
      /hole before/,
    ],
    [
      'an unknown type',
      {
        'model.safetensors': weightsWith((header) => {
          entryOf(header, normName).dtype = 'F6_E3M2';
        }),
      },
      /of type F6_E3M2/,
    ],
    [
      'a type that is not computed',
      {
        'model.safetensors': weightsWith((header) => {
          entryOf(header, normName).dtype = 'I16';
        }),
      },
      /model\.norm\.weight is of type I16, which is not read/,
    ],
    [
      'a shard outside the folder',
      {
        'model.safetensors': null,
        'model.safetensors.index.json': JSON.stringify({ weight_map: { a: '../x.safetensors' } }),
      },
      /"\.\.\/x\.safetensors" is not a file name/,
    ],
  ];
  test.each(cases)('%s', async (name, files, sentence) => {
    const fault = await loadModel(changed(`damaged ${name}`, files)).catch((error: unknown) => error);
    expect(fault).toBeInstanceOf(ModelError);
    expect(String(fault)).toMatch(sentence);
  });

  test('a hub cache without a snapshot', async () => {
    const cache = join(scratch, 'models--someone--nothing');
    mkdirSync(cache);
    await expect(loadModel(cache)).rejects.toThrow(/nothing: it holds 0 snapshots and no refs\/main/);
  });

  test('a path that does not exist', async () => {
    await expect(loadModel(join(scratch, 'nowhere'))).rejects.toThrow(/nowhere: there is no such file/);
  });
});
