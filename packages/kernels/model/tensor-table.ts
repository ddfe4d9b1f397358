/**
 * The tensors of a checkpoint by name, whatever file kind they came from, and the taking of them: each asked for by
 * name, checked against the shape the architecture needs, and at the end none left over. Used by both model readers.
 * Refuses to guess: a tensor that nobody asked for would change the answers if it were silently ignored.
 */
import { ModelError } from './model-error.ts';
import { type TensorSource, tensorDtypes } from './model-shape.ts';

/** A tensor where it lies; dimensions outermost first. Readers have checked that it fits its file. */
export interface StoredTensor {
  readonly name: string;
  readonly file: string;
  readonly offset: number;
  readonly byteLength: number;
  /** As the file spells it; only those of tensorDtypes can be taken. */
  readonly dtype: string;
  readonly dimensions: readonly number[];
}

export class TensorTable {
  /** The file (or folder) that errors name. */
  readonly #origin: string;
  readonly #stored: ReadonlyMap<string, StoredTensor>;
  readonly #taken = new Set<string>();

  constructor(origin: string, tensors: Iterable<StoredTensor>) {
    const stored = new Map<string, StoredTensor>();
    for (const tensor of tensors) {
      if (stored.has(tensor.name))
        throw new ModelError(tensor.file, `the tensor ${tensor.name} stands twice.`);
      stored.set(tensor.name, tensor);
    }
    this.#origin = origin;
    this.#stored = stored;
  }

  has(name: string): boolean {
    return this.#stored.has(name);
  }

  /** The matrix [rows, columns]. */
  matrix(name: string, rows: number, columns: number): TensorSource {
    return this.#take(name, [rows, columns]);
  }

  /** The tensor [count, rows, columns] as `count` matrices, one behind the other. */
  matrices(name: string, count: number, rows: number, columns: number): TensorSource[] {
    const whole = this.#take(name, [count, rows, columns]);
    // Rows are whole blocks, so every matrix begins at a byte of its own.
    const byteLength = whole.byteLength / count;
    return Array.from({ length: count }, (_, index) => ({
      ...whole,
      offset: whole.offset + index * byteLength,
      byteLength,
      rows,
    }));
  }

  /** The vector [size], as one row. */
  vector(name: string, size: number): TensorSource {
    return this.#take(name, [size]);
  }

  /** The vector where the model has it, else null. */
  vectorIfThere(name: string, size: number): TensorSource | null {
    return this.has(name) ? this.#take(name, [size]) : null;
  }

  /** Marks a tensor as known and not needed. */
  skip(name: string): void {
    this.#taken.add(name);
  }

  /** The same of all tensors whose names begin so. */
  skipAll(prefix: string): void {
    for (const name of this.#stored.keys()) if (name.startsWith(prefix)) this.skip(name);
  }

  /** @throws ModelError naming the first tensor that was neither taken nor skipped */
  refuseLeftovers(): void {
    for (const tensor of this.#stored.values()) {
      if (this.#taken.has(tensor.name)) continue;
      throw new ModelError(tensor.file, `the tensor ${tensor.name} has no place in this architecture.`);
    }
  }

  #take(name: string, dimensions: readonly number[]): TensorSource {
    const tensor = this.#stored.get(name);
    if (tensor === undefined) throw new ModelError(this.#origin, `the tensor ${name} is missing.`);
    if (
      tensor.dimensions.length !== dimensions.length ||
      tensor.dimensions.some((size, axis) => size !== dimensions[axis])
    ) {
      throw new ModelError(
        tensor.file,
        `the tensor ${name} has the shape [${tensor.dimensions}]; [${dimensions}] is needed.`,
      );
    }
    const dtype = tensorDtypes.find((candidate) => candidate === tensor.dtype);
    if (dtype === undefined) {
      throw new ModelError(tensor.file, `the tensor ${name} is of type ${tensor.dtype}, which is not read.`);
    }
    this.#taken.add(name);
    const columns = dimensions.at(-1) ?? 0;
    const rows = dimensions.slice(0, -1).reduce((product, size) => product * size, 1);
    return { file: tensor.file, offset: tensor.offset, byteLength: tensor.byteLength, dtype, rows, columns };
  }
}
