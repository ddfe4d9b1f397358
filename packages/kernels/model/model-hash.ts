/**
 * The identity of a model's numbers: SHA-256 over shape, tensor table and samples of every tensor's bytes. Called by the
 * model readers. Fast instead of complete: it tells checkpoints apart, it does not prove that a file is undamaged.
 * Paths stay out of it, so that a copied model keeps its hash.
 */
import { createHash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { asModelError } from './json-file.ts';
import { ModelError } from './model-error.ts';
import type { ModelShape, ModelTensors, TensorSource } from './model-shape.ts';

const SAMPLE_BYTES = 64;
const SAMPLES_PER_TENSOR = 4;
/** Experts come by the ten thousand; what tells two checkpoints apart is in every one of them. */
const SAMPLES_PER_EXPERT_TENSOR = 1;

/** First 16 hex digits. */
export async function modelHash(
  architecture: string,
  shape: ModelShape,
  tensors: ModelTensors,
): Promise<string> {
  const hash = createHash('sha256');
  const { ropeInverseFrequencies, windowTokens, experts, latent, ...plain } = shape;
  const parts = [experts, latent].filter((part) => part !== null);
  hash.update(
    JSON.stringify([architecture, plain, [...ropeInverseFrequencies], [...windowTokens], ...parts]),
  );
  const handles = new Map<string, FileHandle>();
  try {
    for (const [name, tensor] of namedTensors(tensors)) {
      hash.update(JSON.stringify([name, tensor.dtype, tensor.rows, tensor.columns]));
      const handle = handles.get(tensor.file) ?? (await open(tensor.file, 'r'));
      handles.set(tensor.file, handle);
      const sampleCount = name.includes('.experts.') ? SAMPLES_PER_EXPERT_TENSOR : SAMPLES_PER_TENSOR;
      for (const sample of await readSamples(handle, tensor, sampleCount)) hash.update(sample);
    }
  } catch (error) {
    throw asModelError(tensors.embedding.file, error);
  } finally {
    await Promise.all([...handles.values()].map((handle) => handle.close()));
  }
  return hash.digest('hex').slice(0, 16);
}

/** Every tensor with a name that does not depend on the file kind. */
export function namedTensors(tensors: ModelTensors): [string, TensorSource][] {
  const named: [string, TensorSource][] = [['embedding', tensors.embedding]];
  tensors.layers.forEach((layer, index) => {
    const { experts, latent, ...own } = layer;
    const single: Record<string, TensorSource | null> = { ...own, ...latent };
    for (const [name, tensor] of Object.entries(single)) {
      if (tensor !== null) named.push([`layers.${index}.${name}`, tensor]);
    }
    experts.forEach(({ gate, up, down }, expert) => {
      const of = (name: string): string => `layers.${index}.experts.${expert}.${name}`;
      named.push([of('gate'), gate], [of('up'), up], [of('down'), down]);
    });
  });
  named.push(['finalNorm', tensors.finalNorm], ['head', tensors.head]);
  return named;
}

/** Evenly spread from the first byte to the last; one alone is of the middle. */
async function readSamples(handle: FileHandle, tensor: TensorSource, sampleCount: number): Promise<Buffer[]> {
  const length = Math.min(SAMPLE_BYTES, tensor.byteLength);
  const reach = tensor.byteLength - length;
  return Promise.all(
    Array.from({ length: sampleCount }, async (_, index) => {
      const distance = sampleCount === 1 ? reach / 2 : (reach * index) / (sampleCount - 1);
      const position = tensor.offset + Math.floor(distance);
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, position);
      if (bytesRead !== length)
        throw new ModelError(tensor.file, `it ends inside a tensor, at byte ${position}.`);
      return buffer;
    }),
  );
}
