/**
 * Writes golden models as flat files for the CUDA runner (native/cuda/runner/golden_model.h says how they are read), so that
 * a machine with a GPU and no Node can check tokens. Called by tests and by hand: npx tsx packages/kernels/cuda-pack-golden.ts
 * FOLDER [NAME ...]. Dense models alone; the files are kept out of git.
 */
import { closeSync, mkdirSync, openSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type Golden, readGolden } from './golden-files.fixture.ts';
import { loadModel } from './model/load-model.ts';
import type { ModelShape, TensorSource } from './model/model-shape.ts';

export const denseGoldenNames = [
  'llama-gqa',
  'llama-tied',
  'qwen2-bias',
  'qwen3-qknorm',
  'stories-5m',
  'smollm2',
] as const;

const layerParts = [
  'inputNorm',
  'q',
  'k',
  'v',
  'o',
  'qBias',
  'kBias',
  'vBias',
  'qNorm',
  'kNorm',
  'postAttentionNorm',
  'gate',
  'up',
  'down',
] as const;

function shapeLines(shape: ModelShape): string[] {
  const sizes = [
    shape.layerCount,
    shape.hiddenSize,
    shape.intermediateSize,
    shape.headCount,
    shape.kvHeadCount,
    shape.headSize,
    shape.vocabularySize,
    shape.maxPositionCount,
  ];
  const frequencies = new Uint32Array(Float32Array.from(shape.ropeInverseFrequencies).buffer);
  return [
    `shape ${sizes.join(' ')} ${shape.isRopeInterleaved ? 1 : 0} ${shape.rmsNormEpsilon} ${shape.ropeAttentionFactor}`,
    `frequencies ${frequencies.length} ${frequencies.join(' ')}`,
    `windows ${shape.windowTokens.length} ${shape.windowTokens.join(' ')}`,
  ];
}

/** Writes NAME.golden and NAME.weights into `folder`; returns the former's path. */
export async function packGolden(golden: Golden, folder: string): Promise<string> {
  const { shape, tensors } = await loadModel(golden.modelPath);
  if (shape.experts !== null || shape.latent !== null) throw new Error(`${golden.name} is not a dense model`);
  mkdirSync(folder, { recursive: true });
  const named: [string, TensorSource][] = [
    ['embedding', tensors.embedding],
    ['finalNorm', tensors.finalNorm],
    ['head', tensors.head],
  ];
  for (const [i, layer] of tensors.layers.entries()) {
    for (const part of layerParts) {
      const source = layer[part];
      if (source !== null) named.push([`${i}.${part}`, source]);
    }
  }
  const weights = openSync(join(folder, `${golden.name}.weights`), 'w');
  const placed = new Map<string, number>();
  const lines = ['variator-golden 1', ...shapeLines(shape), `tensors ${named.length}`];
  let end = 0;
  for (const [name, source] of named) {
    const key = `${source.file}:${source.offset}`;
    let offset = placed.get(key);
    if (offset === undefined) {
      offset = Math.ceil(end / 64) * 64;
      const bytes = Buffer.alloc(source.byteLength);
      const file = openSync(source.file, 'r');
      readSync(file, bytes, 0, source.byteLength, source.offset);
      closeSync(file);
      writeSync(weights, bytes, 0, bytes.length, offset);
      placed.set(key, offset);
      end = offset + source.byteLength;
    }
    lines.push(
      `tensor ${name} ${source.dtype} ${source.rows} ${source.columns} ${offset} ${source.byteLength}`,
    );
  }
  closeSync(weights);
  for (const { prompt, greedy } of golden.cases) {
    lines.push(`case ${prompt.length} ${prompt.join(' ')} ${greedy.length} ${greedy.join(' ')}`);
  }
  const manifest = join(folder, `${golden.name}.golden`);
  writeFileSync(manifest, `${lines.join('\n')}\n`);
  return manifest;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [folder, ...names] = process.argv.slice(2);
  if (folder === undefined) throw new Error('use: cuda-pack-golden.ts FOLDER [NAME ...]');
  for (const name of names.length > 0 ? names : denseGoldenNames) {
    const golden = readGolden(name);
    if (golden !== null) console.log(await packGolden(golden, folder));
  }
}
