/** Blocks of every dtype as tests need them: how they lie, what their weights are by definition, and random ones. */
import type { TensorDtype } from './model/model-shape.ts';

const { fround } = Math;

/** Half precision by its definition, not by bit tricks. */
function half(bytes: Buffer, at: number): number {
  const bits = bytes.readUInt16LE(at);
  const [sign, exponent, fraction] = [bits >> 15, (bits >> 10) & 31, bits & 1023];
  const magnitude = exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15);
  return sign === 1 ? -magnitude : magnitude;
}
const nibble = (byte: number, isHigh: boolean) => (isHigh ? byte >> 4 : byte & 15);
const bitOf = (bytes: Buffer, at: number, index: number) =>
  ((bytes[at + (index >> 3)] ?? 0) >> (index & 7)) & 1;

/** The 6-bit scales and minimums of Q4_K and Q5_K, read bit by bit from where llama.cpp's format puts them. */
function subBlock(bytes: Buffer, at: number, sub: number): [number, number] {
  const byte = (index: number) => bytes[at + index] ?? 0;
  if (sub < 4) return [byte(sub) % 64, byte(sub + 4) % 64];
  const low = byte(sub + 4);
  return [(low % 16) + 16 * (byte(sub - 4) >> 6), (low >> 4) + 16 * (byte(sub) >> 6)];
}

export interface Format {
  readonly weights: number;
  readonly bytes: number;
  /** Where 16-bit numbers stand, which random bytes must not make infinite. */
  readonly halves: readonly number[];
  weight(block: Buffer, index: number): number;
}
const five = (block: Buffer, at: number, i: number) =>
  nibble(block[at + 4 + (i % 16)] ?? 0, i >= 16) + 16 * bitOf(block, at, i);
const superBlock = (isFiveBit: boolean) => (block: Buffer, i: number) => {
  const sub = i >> 5;
  const [scale, minimum] = subBlock(block, 4, sub);
  const nibbles = isFiveBit ? 48 : 16;
  const fifth = isFiveBit ? ((block[16 + (i % 32)] ?? 0) >> sub) & 1 : 0;
  const code = nibble(block[nibbles + (sub >> 1) * 32 + (i % 32)] ?? 0, sub % 2 === 1) + 16 * fifth;
  return fround(fround(fround(half(block, 0) * scale) * code) - fround(half(block, 2) * minimum));
};

export const formats: Readonly<Partial<Record<TensorDtype, Format>>> = {
  BF16: {
    weights: 1,
    bytes: 2,
    halves: [0],
    weight: (block) => Buffer.from([0, 0, ...block]).readFloatLE(),
  },
  Q8_0: {
    weights: 32,
    bytes: 34,
    halves: [0],
    weight: (block, i) => fround(half(block, 0) * block.readInt8(2 + i)),
  },
  Q4_0: {
    weights: 32,
    bytes: 18,
    halves: [0],
    weight: (block, i) => fround(half(block, 0) * (nibble(block[2 + (i % 16)] ?? 0, i >= 16) - 8)),
  },
  Q4_1: {
    weights: 32,
    bytes: 20,
    halves: [0, 2],
    weight: (block, i) =>
      fround(fround(half(block, 0) * nibble(block[4 + (i % 16)] ?? 0, i >= 16)) + half(block, 2)),
  },
  Q5_0: {
    weights: 32,
    bytes: 22,
    halves: [0],
    weight: (block, i) => fround(half(block, 0) * (five(block, 2, i) - 16)),
  },
  Q5_1: {
    weights: 32,
    bytes: 24,
    halves: [0, 2],
    weight: (block, i) => fround(fround(half(block, 0) * five(block, 4, i)) + half(block, 2)),
  },
  Q4_K: { weights: 256, bytes: 144, halves: [0, 2], weight: superBlock(false) },
  Q5_K: { weights: 256, bytes: 176, halves: [0, 2], weight: superBlock(true) },
  Q6_K: {
    weights: 256,
    bytes: 210,
    halves: [208],
    weight: (block, i) => {
      const [part, quarter, column] = [i >> 7, (i >> 5) & 3, i & 31];
      const low = nibble(block[part * 64 + (quarter & 1) * 32 + column] ?? 0, quarter >= 2);
      const upper = ((block[128 + part * 32 + column] ?? 0) >> (2 * quarter)) & 3;
      return fround(fround(half(block, 208) * block.readInt8(192 + (i >> 4))) * (low + 16 * upper - 32));
    },
  },
};

/** Bytes from a seed, with scales (of BF16 the weights themselves) between 2^-7 and 2^-3. */
export function randomBlocks(format: Format, seed: number, weightCount: number): Buffer {
  const bytes = Buffer.alloc((weightCount / format.weights) * format.bytes);
  let state = seed;
  for (let i = 0; i < bytes.length; i += 1) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  for (let block = 0; block < bytes.length; block += format.bytes) {
    for (const at of format.halves) {
      const high = bytes[block + at + 1] ?? 0;
      bytes[block + at + 1] =
        format.weights === 1 ? (high & 0x81) | 0x3c : (high & 0x83) | ((8 + ((high >> 2) & 3)) << 2);
    }
  }
  return bytes;
}
