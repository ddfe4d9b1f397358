/**
 * Random float32 weights for tests of models in odd shapes: tensors drawn from a seed and written to files, their numbers
 * kept, and the products that a slow float64 computation makes of them.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TensorSource } from './model/model-shape.ts';

/** Even in [0, 1); mulberry32. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export class RandomWeights {
  readonly #random: () => number;
  readonly #folder = mkdtempSync(join(tmpdir(), 'variator-random-'));
  readonly #values = new Map<TensorSource, Float32Array>();

  constructor(seed: number) {
    this.#random = generator(seed);
  }

  /** [rows, columns] even between -scale and scale; scaled so that a product keeps its input's size by default. */
  matrix(rows: number, columns: number, scale = Math.sqrt(3 / columns)): TensorSource {
    return this.of(
      rows,
      columns,
      Float32Array.from({ length: rows * columns }, () => (2 * this.#random() - 1) * scale),
    );
  }

  /** Around `centre`. */
  vector(size: number, centre = 1, width = 0.3): TensorSource {
    return this.of(
      1,
      size,
      Float32Array.from({ length: size }, () => centre + (2 * this.#random() - 1) * width),
    );
  }

  of(rows: number, columns: number, values: Float32Array): TensorSource {
    const file = join(this.#folder, String(this.#values.size));
    writeFileSync(file, Buffer.from(values.buffer, values.byteOffset, values.byteLength));
    const source = { file, offset: 0, byteLength: values.byteLength, dtype: 'F32', rows, columns } as const;
    this.#values.set(source, values);
    return source;
  }

  /** The numbers as they were written, row-major. */
  valuesOf(source: TensorSource): Float32Array {
    const values = this.#values.get(source);
    if (values === undefined) throw new Error('not a tensor of these weights');
    return values;
  }

  /** Weight times x, in float64. */
  multiply(source: TensorSource, x: readonly number[]): number[] {
    const values = this.valuesOf(source);
    return Array.from({ length: source.rows }, (_, row) =>
      x.reduce(
        (sum, value, column) => sum + value * (values[row * source.columns + column] ?? Number.NaN),
        0,
      ),
    );
  }

  /** RMS norm in float64. */
  normalise(source: TensorSource, x: readonly number[], epsilon: number): number[] {
    const weight = this.valuesOf(source);
    const factor = 1 / Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) / x.length + epsilon);
    return x.map((value, index) => value * factor * (weight[index] ?? Number.NaN));
  }

  close(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
