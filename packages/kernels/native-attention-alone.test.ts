/**
 * Attention by itself against sums in float64: every variant by every size of splits, tuning, thread count and instruction
 * set, on shapes that are odd in every way. Blocks lie in any order, and what nobody wrote, in the cache and in the
 * results, is NaN. Between tunings, threads, chunks and instruction sets: equal to the bit.
 */
import { afterAll, expect, test } from 'vitest';
import type { AttentionVariantId } from './catalogue.ts';
import { type AttentionTrial, loadNative, NativeError } from './native.ts';

const native = loadNative();
afterAll(() => native.limitIsa('all'));

/** Of the largest value that is attended to. */
const tolerances: Readonly<Partial<Record<AttentionVariantId, number>>> = {
  'attention.reference': 1e-5,
  'attention.float32': 1e-5,
  'attention.bf16': 0.02,
  'attention.int8': 0.06,
};
const variants = Object.keys(tolerances) as AttentionVariantId[];
const splits = [128, 256, 512, 1024, 2048];
/** pairsAtOnce, prefetchBlocks, groupsPerSplit, leastUnitsPerThread: the first is the usual one. */
const tunings = [
  [6, 1, 1, 4],
  [1, 0, 1, 0],
  [4, 2, 3, 64],
  [5, 8, 16, 0],
  [2, 3, 7, 64],
] as const;

type Shape = Pick<AttentionTrial, 'headCount' | 'kvHeadCount' | 'headSize' | 'windowTokens' | 'blockSize'> & {
  /** [rows, tokens of context before them] of each sequence. */
  readonly sequences: readonly (readonly [number, number])[];
};

const shapes: Readonly<Record<string, Shape>> = {
  'three heads a KV head, one row each, and a chunk across a border of splits': {
    headCount: 6,
    kvHeadCount: 2,
    headSize: 64,
    windowTokens: 0,
    blockSize: 16,
    sequences: [
      [1, 700],
      [1, 0],
      [23, 505],
      [4, 127],
    ],
  },
  'seven heads of 18 on one KV head, blocks of five': {
    headCount: 7,
    kvHeadCount: 1,
    headSize: 18,
    windowTokens: 0,
    blockSize: 5,
    sequences: [
      [1, 1029],
      [9, 300],
    ],
  },
  'a window of 150, blocks of 48': {
    headCount: 4,
    kvHeadCount: 2,
    headSize: 80,
    windowTokens: 150,
    blockSize: 48,
    sequences: [
      [5, 640],
      [1, 255],
      [30, 0],
    ],
  },
  'heads of two, blocks of one token': {
    headCount: 3,
    kvHeadCount: 3,
    headSize: 2,
    windowTokens: 0,
    blockSize: 1,
    sequences: [[11, 250]],
  },
};

type Data = Pick<AttentionTrial, 'tokenStarts' | 'contextLengths' | 'queries' | 'keys' | 'values'>;

function drawn({ headCount, kvHeadCount, headSize, sequences }: Shape): Data {
  let state = 5;
  const draw = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
  const rows = sequences.reduce((sum, [rowCount]) => sum + rowCount, 0);
  const tokens = sequences.reduce((sum, [rowCount, context]) => sum + rowCount + context, 0);
  const starts = [0];
  for (const [rowCount] of sequences) starts.push((starts.at(-1) ?? 0) + rowCount);
  const list = (length: number, scale: number) => Float32Array.from({ length }, () => scale * draw());
  return {
    tokenStarts: Int32Array.from(starts),
    contextLengths: Int32Array.from(sequences, ([, context]) => context),
    // Weights far from equal.
    queries: list(rows * headCount * headSize, 3),
    keys: list(tokens * kvHeadCount * headSize, 1),
    values: list(tokens * kvHeadCount * headSize, 1),
  };
}

/** Softmax(q k / sqrt(headSize)) v in float64, one row and head at a time. */
function slowly({ headCount, kvHeadCount, headSize, windowTokens, sequences }: Shape, data: Data): number[] {
  const out: number[] = [];
  const at = (list: Float32Array, index: number) => list[index] ?? Number.NaN;
  let row = 0;
  let firstToken = 0;
  for (const [rowCount, context] of sequences) {
    for (let position = context; position < context + rowCount; position += 1, row += 1) {
      const from = windowTokens === 0 ? 0 : Math.max(0, position + 1 - windowTokens);
      for (let head = 0; head < headCount; head += 1) {
        const kvHead = Math.floor(head / (headCount / kvHeadCount));
        const query = (row * headCount + head) * headSize;
        const place = (token: number) => ((firstToken + token) * kvHeadCount + kvHead) * headSize;
        const scores: number[] = [];
        for (let token = from; token <= position; token += 1) {
          let score = 0;
          for (let d = 0; d < headSize; d += 1)
            score += at(data.queries, query + d) * at(data.keys, place(token) + d);
          scores.push(score / Math.sqrt(headSize));
        }
        const most = Math.max(...scores);
        const weights = scores.map((score) => Math.exp(score - most));
        const total = weights.reduce((sum, weight) => sum + weight, 0);
        for (let d = 0; d < headSize; d += 1) {
          const sum = weights.reduce(
            (all, weight, i) => all + weight * at(data.values, place(from + i) + d),
            0,
          );
          out.push(sum / total);
        }
      }
    }
    firstToken += rowCount + context;
  }
  return out;
}

const farthest = (a: ArrayLike<number>, b: readonly number[]): number =>
  b.reduce((most, value, index) => {
    const apart = Math.abs(value - (a[index] ?? Number.NaN));
    // NaN stays NaN.
    return Math.max(apart, most);
  }, 0);

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array): Buffer =>
  Buffer.from(buffer, byteOffset, byteLength);
/** To the bit. */
const isSame = (a: Float32Array, b: Float32Array): boolean => bytesOf(a).equals(bytesOf(b));

/** Each sequence in chunks of `size` rows, one after the other, as steps of a long prompt would be. */
function chunked(shape: Shape, data: Data, size: number): { shape: Shape; data: Data }[] {
  const { headCount, kvHeadCount, headSize } = shape;
  let row = 0;
  let token = 0;
  return shape.sequences.flatMap(([rowCount, context]) => {
    const own: { shape: Shape; data: Data }[] = [];
    for (let first = 0; first < rowCount; first += size) {
      const count = Math.min(size, rowCount - first);
      const upTo = token + context + first + count;
      const rowSize = headCount * headSize;
      const tokenSize = kvHeadCount * headSize;
      own.push({
        shape: { ...shape, sequences: [[count, context + first]] },
        data: {
          tokenStarts: Int32Array.of(0, count),
          contextLengths: Int32Array.of(context + first),
          queries: data.queries.slice((row + first) * rowSize, (row + first + count) * rowSize),
          keys: data.keys.slice(token * tokenSize, upTo * tokenSize),
          values: data.values.slice(token * tokenSize, upTo * tokenSize),
        },
      });
    }
    row += rowCount;
    token += rowCount + context;
    return own;
  });
}

function trialOf(shape: Shape, data: Data, attention: AttentionVariantId): AttentionTrial {
  const { sequences, ...sizes } = shape;
  expect(sequences.length).toBe(data.contextLengths.length);
  return {
    ...sizes,
    ...data,
    attention,
    splitTokens: 512,
    threadCount: 2,
    tuning: Int32Array.from(tunings[0]),
  };
}

for (const [name, shape] of Object.entries(shapes)) {
  const data = drawn(shape);
  const expected = slowly(shape, data);
  const most = data.values.reduce((all, value) => Math.max(all, Math.abs(value)), 0);

  test.each(variants)(
    `${name}: %s agrees by every size of splits, and to the bit by every tuning`,
    (attention) => {
      const trial = trialOf(shape, data, attention);
      const bits = new Set<string>();
      for (const splitTokens of splits) {
        native.limitIsa('all');
        const usual = native.attend({ ...trial, splitTokens });
        const where = `splits of ${splitTokens}`;
        expect(farthest(usual, expected), where).toBeLessThan((tolerances[attention] ?? 0) * most);
        bits.add(usual.join());
        for (const tuning of tunings) {
          for (const threadCount of [1, 2, 3]) {
            const own = native.attend({
              ...trial,
              splitTokens,
              threadCount,
              tuning: Int32Array.from(tuning),
            });
            expect(isSame(own, usual), `${where}, ${threadCount} threads, ${tuning.join()}`).toBe(true);
          }
        }
        for (const isa of ['avx512', 'avx2', 'generic'] as const) {
          native.limitIsa(isa);
          const [, , other] = tunings;
          for (const tuning of [trial.tuning, Int32Array.from(other)]) {
            const own = native.attend({ ...trial, splitTokens, tuning });
            expect(isSame(own, usual), `${where}, ${isa}, ${tuning.join()}`).toBe(true);
          }
        }
        native.limitIsa('all');
        const parts = chunked(shape, data, 2).map((part) =>
          native.attend({ ...trialOf(part.shape, part.data, attention), splitTokens }),
        );
        const whole = Float32Array.from(parts.flatMap((part) => [...part]));
        expect(isSame(whole, usual), `${where}, in chunks`).toBe(true);
      }
      // Whoever has no splits has one answer; the others have more than one, or the sizes were not used at all.
      const isSplit = attention !== 'attention.reference' && shape.windowTokens === 0;
      if (isSplit) expect(bits.size).toBeGreaterThan(1);
      if (attention === 'attention.reference') expect(bits.size).toBe(1);
    },
  );
}

test('a trial whose lists do not fit, or whose tuning is beyond its range, is refused by name', () => {
  const [shape] = Object.values(shapes);
  if (shape === undefined) throw new Error('no shape');
  const trial = trialOf(shape, drawn(shape), 'attention.bf16');
  const attend = (changes: Partial<AttentionTrial>) => () => native.attend({ ...trial, ...changes });
  expect(attend({ queries: trial.queries.slice(1) })).toThrow('queries: must be [T, headCount, headSize]');
  expect(attend({ values: trial.values.slice(1) })).toThrow(/^keys, values/);
  expect(attend({ tokenStarts: Int32Array.of(0, 1) })).toThrow(/^tokenStarts/);
  expect(attend({ headCount: 5 })).toThrow(/^headCount/);
  expect(attend({ splitTokens: 64 })).toThrow(/^splitTokens/);
  expect(attend({ splitTokens: 384 })).toThrow(/^splitTokens/);
  for (const bad of [
    [7, 1, 1, 4],
    [0, 1, 1, 4],
    [6, 9, 1, 4],
    [6, 1, 17, 4],
    [6, 1, 0, 4],
    [6, 1, 1, 65],
  ]) {
    expect(attend({ tuning: Int32Array.from(bad) }), bad.join()).toThrow(
      'tuning: entry 0 is out of its range',
    );
  }
  expect(attend({ tuning: Int32Array.of(6, 1, 1) })).toThrow(NativeError);
});
