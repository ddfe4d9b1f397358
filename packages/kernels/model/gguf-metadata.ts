/**
 * Typed access to a GGUF file's metadata, with errors that name file and key. Used by gguf-model.ts and
 * gguf-tokenizer.ts. Absent is null; a wrong type is a ModelError, never a default.
 */
import type { GgufValue } from './gguf-file.ts';
import { ModelError } from './model-error.ts';

const NO_TOKEN = 2 ** 32 - 1;

export class GgufMetadata {
  readonly file: string;
  readonly #values: ReadonlyMap<string, GgufValue>;

  constructor(file: string, values: ReadonlyMap<string, GgufValue>) {
    this.file = file;
    this.#values = values;
  }

  text(key: string): string | null {
    const value = this.#values.get(key);
    if (value !== undefined && typeof value !== 'string') throw this.#wrong(key, 'a text');
    return value ?? null;
  }

  isTrue(key: string): boolean | null {
    const value = this.#values.get(key);
    if (value !== undefined && typeof value !== 'boolean') throw this.#wrong(key, 'true or false');
    return value ?? null;
  }

  /** A finite number above zero. */
  positive(key: string): number | null {
    const value = this.#values.get(key);
    if (value === undefined) return null;
    if (typeof value !== 'number' || !Number.isFinite(value) || value <= 0) {
      throw this.#wrong(key, 'a number above zero');
    }
    return value;
  }

  /** A whole number from 0 to `most`. */
  count(key: string, most: number): number | null {
    const value = this.#values.get(key);
    if (value === undefined) return null;
    if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > most) {
      throw this.#wrong(key, `a whole number from 0 to ${most}`);
    }
    return value;
  }

  /** A token's id; null also where it is -1 in 32 bits, llama.cpp's word for a token that the model has not. */
  tokenId(key: string, most: number): number | null {
    return this.#values.get(key) === NO_TOKEN ? null : this.count(key, most);
  }

  /** A whole number from 1 to `most` that must be there. */
  neededCount(key: string, most: number): number {
    const value = this.count(key, most);
    if (value === null || value === 0) throw new ModelError(this.file, `${key} is missing.`);
    return value;
  }

  texts(key: string): readonly string[] | null {
    const value = this.#values.get(key);
    if (value === undefined) return null;
    if (!isListOf(value, (item): item is string => typeof item === 'string')) {
      throw this.#wrong(key, 'a list of texts');
    }
    return value;
  }

  numbers(key: string): readonly number[] | null {
    const value = this.#values.get(key);
    if (value === undefined) return null;
    if (!isListOf(value, (item): item is number => typeof item === 'number')) {
      throw this.#wrong(key, 'a list of numbers');
    }
    return value;
  }

  #wrong(key: string, wanted: string): ModelError {
    return new ModelError(this.file, `${key} is not ${wanted}.`);
  }
}

function isListOf<T extends GgufValue>(
  value: GgufValue,
  isOne: (item: GgufValue) => item is T,
): value is readonly T[] {
  return Array.isArray(value) && value.every(isOne);
}
