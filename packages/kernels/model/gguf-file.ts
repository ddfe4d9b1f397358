/**
 * Reads the header of a GGUF file, versions 2 and 3: metadata and tensor table, no weight. Called by gguf-model.ts.
 * Every count and length is compared with what the file can still hold before anything is allocated for it.
 *
 *   | "GGUF" | u32 version | u64 tensors | u64 pairs | metadata pairs | tensor infos | padding | tensor bytes |
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { asModelError } from './json-file.ts';
import { ModelError } from './model-error.ts';
import type { StoredTensor } from './tensor-table.ts';

export type GgufValue = number | boolean | string | readonly GgufValue[];

export interface GgufFile {
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: readonly StoredTensor[];
}

const READ_AHEAD_BYTES = 1 << 20;
const MAX_STRING_BYTES = 16 << 20;
const MAX_ARRAY_LENGTH = 1 << 24;
const MAX_COUNT = 1 << 20;
/** Large vocabularies with their merges take about 10 MB. Each byte may become a number of eight. */
const MAX_HEADER_BYTES = 64 << 20;

/** Value types by number; arrays (9) and strings (8) are read apart. */
const SCALARS: Readonly<
  Record<number, { readonly bytes: number; readonly read: (at: Buffer) => number | boolean }>
> = {
  0: { bytes: 1, read: (at) => at.readUInt8() },
  1: { bytes: 1, read: (at) => at.readInt8() },
  2: { bytes: 2, read: (at) => at.readUInt16LE() },
  3: { bytes: 2, read: (at) => at.readInt16LE() },
  4: { bytes: 4, read: (at) => at.readUInt32LE() },
  5: { bytes: 4, read: (at) => at.readInt32LE() },
  6: { bytes: 4, read: (at) => at.readFloatLE() },
  7: { bytes: 1, read: (at) => at.readUInt8() !== 0 },
  10: { bytes: 8, read: (at) => Number(at.readBigUInt64LE()) },
  11: { bytes: 8, read: (at) => Number(at.readBigInt64LE()) },
  12: { bytes: 8, read: (at) => at.readDoubleLE() },
};
const STRING = 8;
const ARRAY = 9;

interface GgmlType {
  readonly name: string;
  readonly blockElements: number;
  readonly blockBytes: number;
}
const TYPES: Readonly<Record<number, GgmlType>> = {
  0: { name: 'F32', blockElements: 1, blockBytes: 4 },
  1: { name: 'F16', blockElements: 1, blockBytes: 2 },
  2: { name: 'Q4_0', blockElements: 32, blockBytes: 18 },
  3: { name: 'Q4_1', blockElements: 32, blockBytes: 20 },
  6: { name: 'Q5_0', blockElements: 32, blockBytes: 22 },
  7: { name: 'Q5_1', blockElements: 32, blockBytes: 24 },
  8: { name: 'Q8_0', blockElements: 32, blockBytes: 34 },
  12: { name: 'Q4_K', blockElements: 256, blockBytes: 144 },
  13: { name: 'Q5_K', blockElements: 256, blockBytes: 176 },
  14: { name: 'Q6_K', blockElements: 256, blockBytes: 210 },
  30: { name: 'BF16', blockElements: 1, blockBytes: 2 },
};
const UNREAD_TYPE_NAMES: Readonly<Record<number, string>> = {
  9: 'Q8_1',
  10: 'Q2_K',
  11: 'Q3_K',
  15: 'Q8_K',
  16: 'IQ2_XXS',
  17: 'IQ2_XS',
  18: 'IQ3_XXS',
  19: 'IQ1_S',
  20: 'IQ4_NL',
  21: 'IQ3_S',
  22: 'IQ2_S',
  23: 'IQ4_XS',
  24: 'I8',
  25: 'I16',
  26: 'I32',
  27: 'I64',
  28: 'F64',
  29: 'IQ1_M',
  34: 'TQ1_0',
  35: 'TQ2_0',
  39: 'MXFP4',
};

/** @throws ModelError */
export function readGguf(file: string): GgufFile {
  let descriptor: number;
  try {
    descriptor = openSync(file, 'r');
  } catch (error) {
    throw asModelError(file, error);
  }
  try {
    return readHeader(new Cursor(file, descriptor, fstatSync(descriptor).size));
  } catch (error) {
    throw asModelError(file, error);
  } finally {
    closeSync(descriptor);
  }
}

function readHeader(cursor: Cursor): GgufFile {
  if (cursor.fileSize < 4 || cursor.take(4, 'the mark').toString('latin1') !== 'GGUF') {
    throw cursor.fault('it is not a GGUF file (it does not begin with "GGUF").');
  }
  const version = cursor.uint32('the version');
  if (version !== 2 && version !== 3) {
    const isSwapped = version === 0x02000000 || version === 0x03000000;
    throw cursor.fault(
      isSwapped
        ? 'it is a big-endian GGUF file, which is not read.'
        : `GGUF version ${version} is not read; 2 and 3 are.`,
    );
  }
  const tensorCount = cursor.count('tensors', MAX_COUNT, 24);
  const pairCount = cursor.count('metadata pairs', MAX_COUNT, 13);

  const metadata = new Map<string, GgufValue>();
  for (let index = 0; index < pairCount; index += 1) {
    const key = cursor.string('a metadata key');
    if (metadata.has(key)) throw cursor.fault(`the metadata key "${key}" stands twice.`);
    metadata.set(key, readValue(cursor, key, cursor.uint32(key)));
  }
  const alignment = metadata.get('general.alignment') ?? 32;
  if (typeof alignment !== 'number' || alignment < 8 || alignment > 65_536 || alignment % 8 !== 0) {
    throw cursor.fault(`an alignment of ${alignment} is not a multiple of 8 up to 65536.`);
  }
  const infos = Array.from({ length: tensorCount }, () => readTensorInfo(cursor, alignment));
  const dataStart = Math.ceil(cursor.position / alignment) * alignment;
  const tensors = infos.map((info) => ({ ...info, offset: dataStart + info.offset }));
  checkLayout(cursor, tensors);
  return { metadata, tensors };
}

function readValue(cursor: Cursor, key: string, type: number): GgufValue {
  if (type === STRING) return cursor.string(key);
  if (type !== ARRAY) return readScalar(cursor, key, type);
  const elementType = cursor.uint32(key);
  if (elementType === ARRAY) throw cursor.fault(`${key} is an array of arrays, which is not read.`);
  const elementBytes = elementType === STRING ? 8 : (SCALARS[elementType]?.bytes ?? 1);
  const length = cursor.count(`elements of ${key}`, MAX_ARRAY_LENGTH, elementBytes);
  const values: GgufValue[] = [];
  for (let index = 0; index < length; index += 1) {
    values.push(elementType === STRING ? cursor.string(key) : readScalar(cursor, key, elementType));
  }
  return values;
}

function readScalar(cursor: Cursor, key: string, type: number): number | boolean {
  const scalar = SCALARS[type];
  if (scalar === undefined) throw cursor.fault(`the value of "${key}" is of the unknown type ${type}.`);
  return scalar.read(cursor.take(scalar.bytes, key));
}

/** The offset is still relative to the data. */
function readTensorInfo(cursor: Cursor, alignment: number): StoredTensor {
  const name = cursor.string('a tensor name');
  const what = `the tensor ${name}`;
  const dimensionCount = cursor.uint32(what);
  if (dimensionCount < 1 || dimensionCount > 4)
    throw cursor.fault(`${what} claims ${dimensionCount} dimensions.`);
  // GGUF counts the innermost dimension first.
  const dimensions = Array.from({ length: dimensionCount }, () => cursor.uint64(what)).reverse();
  const typeNumber = cursor.uint32(what);
  const offset = cursor.uint64(what);
  const type = TYPES[typeNumber];
  if (type === undefined) {
    const typeName = UNREAD_TYPE_NAMES[typeNumber] ?? `number ${typeNumber}`;
    throw cursor.fault(
      `${what} is of type ${typeName}; ${Object.values(TYPES)
        .map((known) => known.name)
        .join(', ')} are read.`,
    );
  }
  const elements = dimensions.reduce((product, size) => product * size, 1);
  if (!Number.isSafeInteger(elements) || elements === 0) {
    throw cursor.fault(`${what} claims the shape [${dimensions}].`);
  }
  if ((dimensions.at(-1) ?? 0) % type.blockElements !== 0) {
    throw cursor.fault(
      `${what} has rows of ${dimensions.at(-1)} elements; ${type.name} needs multiples of ${type.blockElements}.`,
    );
  }
  if (offset % alignment !== 0) {
    throw cursor.fault(`${what} begins at ${offset}, which is not a multiple of ${alignment}.`);
  }
  const byteLength = (elements / type.blockElements) * type.blockBytes;
  return { name, file: cursor.file, offset, byteLength, dtype: type.name, dimensions };
}

function checkLayout(cursor: Cursor, tensors: readonly StoredTensor[]): void {
  let end = 0;
  for (const tensor of [...tensors].sort((a, b) => a.offset - b.offset)) {
    if (tensor.offset < end) throw cursor.fault(`the tensor ${tensor.name} overlaps the one before it.`);
    end = tensor.offset + tensor.byteLength;
    if (end > cursor.fileSize) {
      throw cursor.fault(`the tensor ${tensor.name} ends at byte ${end}; the file at ${cursor.fileSize}.`);
    }
  }
}

/** Walks forward through the file; refuses to step over its end. */
class Cursor {
  readonly file: string;
  readonly fileSize: number;
  readonly #descriptor: number;
  #window = Buffer.alloc(0);
  #windowStart = 0;
  #at = 0;

  constructor(file: string, descriptor: number, fileSize: number) {
    this.file = file;
    this.#descriptor = descriptor;
    this.fileSize = fileSize;
  }

  get position(): number {
    return this.#windowStart + this.#at;
  }

  fault(text: string): ModelError {
    return new ModelError(this.file, text);
  }

  /** The next bytes; valid until the next call. */
  take(length: number, what: string): Buffer {
    if (length > this.fileSize - this.position) {
      throw this.fault(`it ends at byte ${this.fileSize}, in the midst of ${what}.`);
    }
    if (this.position + length > MAX_HEADER_BYTES) {
      throw this.fault(`its header is longer than ${MAX_HEADER_BYTES} bytes, the limit.`);
    }
    if (this.#at + length > this.#window.length) this.#refill(length);
    const bytes = this.#window.subarray(this.#at, this.#at + length);
    this.#at += length;
    return bytes;
  }

  uint32(what: string): number {
    return this.take(4, what).readUInt32LE();
  }

  uint64(what: string): number {
    const value = Number(this.take(8, what).readBigUInt64LE());
    if (!Number.isSafeInteger(value)) throw this.fault(`${what} holds a number too large to be true.`);
    return value;
  }

  /** A count of things of at least `leastBytes` each. */
  count(what: string, most: number, leastBytes: number): number {
    const value = Number(this.take(8, `the number of ${what}`).readBigUInt64LE());
    if (value > most) throw this.fault(`it claims ${value} ${what}; ${most} are the limit.`);
    if (value * leastBytes > this.fileSize - this.position) {
      throw this.fault(`it claims ${value} ${what}, more than fit its ${this.fileSize} bytes.`);
    }
    return value;
  }

  string(what: string): string {
    const length = this.count(`bytes of ${what}`, MAX_STRING_BYTES, 1);
    return this.take(length, what).toString('utf8');
  }

  #refill(length: number): void {
    const start = this.position;
    const size = Math.min(Math.max(length, READ_AHEAD_BYTES), this.fileSize - start);
    const window = Buffer.alloc(size);
    let filled = 0;
    while (filled < size) {
      const read = readSync(this.#descriptor, window, filled, size - filled, start + filled);
      if (read === 0) throw this.fault('it became shorter while it was read.');
      filled += read;
    }
    this.#window = window;
    this.#windowStart = start;
    this.#at = 0;
  }
}
