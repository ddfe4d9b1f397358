/** Golden models written as GGUF files and read back: their tokens are still the golden ones. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { readGolden } from './golden-files.fixture.ts';
import { type Plan, type Tensor, type Value, writeGguf } from './model/gguf-writer.fixture.ts';
import { loadModel } from './model/load-model.ts';
import type { TensorSource } from './model/model-shape.ts';
import { loadNative } from './native.ts';
import { StepDriver } from './step-driver.fixture.ts';

const scratch = mkdtempSync(join(tmpdir(), 'variator-gguf-golden-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const linear = 'linear.reference';

/** llama.cpp's names; `architecture` also begins the keys. */
async function asGguf(modelPath: string, architecture: 'qwen2' | 'qwen3' | 'qwen3moe'): Promise<string> {
  const { shape, tensors } = await loadModel(modelPath);
  const config = JSON.parse(readFileSync(join(modelPath, 'config.json'), 'utf8')) as {
    rope_theta?: number;
    rope_parameters?: { rope_theta?: number };
  };
  const bytesOf = ({ file, offset, byteLength }: TensorSource) =>
    readFileSync(file).subarray(offset, offset + byteLength);
  const stored = (name: string, source: TensorSource): Tensor => ({
    name,
    dimensions: source.rows === 1 ? [source.columns] : [source.columns, source.rows],
    type: 0,
    byteLength: source.byteLength,
    data: bytesOf(source),
  });
  const stacked = (name: string, sources: readonly TensorSource[]): Tensor[] => {
    const [first] = sources;
    if (first === undefined) return [];
    const data = Buffer.concat(sources.map(bytesOf));
    const dimensions = [first.columns, first.rows, sources.length];
    return [{ name, dimensions, type: 0, byteLength: data.length, data }];
  };
  const maybe = (name: string, source: TensorSource | null): Tensor[] =>
    source === null ? [] : [stored(name, source)];
  const layers = tensors.layers.flatMap((layer, index) => {
    const of = (name: string): string => `blk.${index}.${name}`;
    return [
      stored(of('attn_norm.weight'), layer.inputNorm),
      stored(of('attn_q.weight'), layer.q),
      ...maybe(of('attn_k.weight'), layer.k),
      ...maybe(of('attn_v.weight'), layer.v),
      stored(of('attn_output.weight'), layer.o),
      ...maybe(of('attn_q.bias'), layer.qBias),
      ...maybe(of('attn_k.bias'), layer.kBias),
      ...maybe(of('attn_v.bias'), layer.vBias),
      ...maybe(of('attn_q_norm.weight'), layer.qNorm),
      ...maybe(of('attn_k_norm.weight'), layer.kNorm),
      stored(of('ffn_norm.weight'), layer.postAttentionNorm),
      ...maybe(of('ffn_gate.weight'), layer.gate),
      ...maybe(of('ffn_up.weight'), layer.up),
      ...maybe(of('ffn_down.weight'), layer.down),
      ...maybe(of('ffn_gate_inp.weight'), layer.router),
      ...stacked(
        of('ffn_gate_exps.weight'),
        layer.experts.map(({ gate }) => gate),
      ),
      ...stacked(
        of('ffn_up_exps.weight'),
        layer.experts.map(({ up }) => up),
      ),
      ...stacked(
        of('ffn_down_exps.weight'),
        layer.experts.map(({ down }) => down),
      ),
    ];
  });
  const key = (name: string): string => `${architecture}.${name}`;
  const plan: Plan = {
    version: 3,
    metadata: new Map<string, Value>([
      ['general.architecture', architecture],
      [key('block_count'), shape.layerCount],
      [key('context_length'), shape.maxPositionCount],
      [key('embedding_length'), shape.hiddenSize],
      [key('feed_forward_length'), shape.intermediateSize],
      ...(shape.experts === null
        ? []
        : ([
            [key('expert_count'), shape.experts.expertCount],
            [key('expert_used_count'), shape.experts.expertsPerToken],
            [key('expert_feed_forward_length'), shape.experts.intermediateSize],
          ] as const)),
      [key('attention.head_count'), shape.headCount],
      [key('attention.head_count_kv'), shape.kvHeadCount],
      [key('attention.key_length'), shape.headSize],
      [key('attention.value_length'), shape.headSize],
      [key('attention.layer_norm_rms_epsilon'), { float: shape.rmsNormEpsilon }],
      [key('rope.freq_base'), { float: config.rope_parameters?.rope_theta ?? config.rope_theta ?? 10_000 }],
      ['tokenizer.ggml.model', 'gpt2'],
      ['tokenizer.ggml.pre', 'qwen2'],
      ['tokenizer.ggml.tokens', Array.from({ length: shape.vocabularySize }, (_, id) => `token ${id}`)],
      ['tokenizer.ggml.merges', ['t o']],
      ['tokenizer.ggml.eos_token_id', 0],
    ]),
    tensors: [
      stored('token_embd.weight', tensors.embedding),
      ...layers,
      stored('output_norm.weight', tensors.finalNorm),
      ...(tensors.head === tensors.embedding ? [] : [stored('output.weight', tensors.head)]),
    ],
  };
  return writeGguf(scratch, architecture, plan);
}

for (const [name, architecture] of [
  ['qwen2-bias', 'qwen2'],
  ['qwen3-qknorm', 'qwen3'],
  ['qwen3-moe', 'qwen3moe'],
] as const) {
  const golden = readGolden(name);
  test.skipIf(golden === null)(
    `${name} as a GGUF file of architecture ${architecture} gives the golden tokens`,
    async () => {
      if (golden === null) return;
      const loaded = await loadModel(await asGguf(golden.modelPath, architecture));
      expect(loaded.shape.isRopeInterleaved).toBe(false);
      const driver = new StepDriver(loadNative(), loaded, {
        sequenceCount: golden.cases.length,
        tokensPerSequence: 320,
        threadCount: 2,
        blockSize: 16,
      });
      await driver.prepare(linear);
      const prompts = golden.cases.map(({ prompt }) => prompt);
      const most = Math.max(...golden.cases.map(({ greedy }) => greedy.length));
      const { tokens } = await driver.generate(prompts, most, {
        linear,
        chunkSize: 64,
        isLogitsWanted: false,
      });
      expect(tokens.map((own, index) => own.slice(0, golden.cases[index]?.greedy.length))).toEqual(
        golden.cases.map(({ greedy }) => greedy),
      );
      driver.close();
    },
  );
}
