import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { type LinearVariantId, linearVariantsFor } from './catalogue.ts';
import type { ModelShape, ModelTensors, TensorDtype, TensorSource } from './model/model-shape.ts';
import { loadNative } from './native.ts';
import { type Format, formats, randomBlocks } from './quantised-blocks.fixture.ts';

const native = loadNative();
const fastest =
  linearVariantsFor(native.probeMachine(1).features, new Set(['Q8_0']))[0] ?? 'linear.reference';
const scratch = mkdtempSync(join(tmpdir(), 'variator-dequantise-'));
afterAll(() => rmSync(scratch, { recursive: true }));

const COLUMNS = 256;
const ROWS = 64;
function weightsOf(format: Format, bytes: Buffer): Float32Array {
  return Float32Array.from({ length: ROWS * COLUMNS }, (_, index) => {
    const block = Math.floor(index / format.weights) * format.bytes;
    return format.weight(bytes.subarray(block, block + format.bytes), index % format.weights);
  });
}

/**
 * A model whose layer adds nothing and whose logits, for token k, are 16 times column k of the head: its embedding is 16
 * times the unit matrix, which the final norm (mean square 1, no epsilon) leaves as it is.
 */
async function headColumns(
  dtype: TensorDtype,
  bytes: Buffer,
  linear: LinearVariantId,
): Promise<Float32Array> {
  const zeros = join(scratch, 'zeros');
  const identity = join(scratch, 'identity');
  const ones = join(scratch, 'ones');
  const head = join(scratch, dtype);
  writeFileSync(zeros, Buffer.alloc(COLUMNS * COLUMNS * 4));
  writeFileSync(
    identity,
    Buffer.from(Float32Array.from({ length: ROWS * 4 * COLUMNS }, (_, i) => (i % 257 === 0 ? 16 : 0)).buffer),
  );
  writeFileSync(ones, Buffer.from(new Float32Array(COLUMNS).fill(1).buffer));
  writeFileSync(head, bytes);
  const at = (file: string, rows: number, columns: number, type: TensorDtype = 'F32'): TensorSource => ({
    file,
    offset: 0,
    byteLength: type === 'F32' ? rows * columns * 4 : bytes.length,
    dtype: type,
    rows,
    columns,
  });
  const none = (rows: number, columns: number) => at(zeros, rows, columns);
  const shape: ModelShape = {
    layerCount: 1,
    hiddenSize: COLUMNS,
    intermediateSize: 32,
    headCount: 1,
    kvHeadCount: 1,
    headSize: 32,
    vocabularySize: ROWS,
    maxPositionCount: 16,
    rmsNormEpsilon: 0,
    ropeInverseFrequencies: new Float32Array(16),
    ropeAttentionFactor: 1,
    windowTokens: new Int32Array(1),
    isRopeInterleaved: false,
    experts: null,
    latent: null,
  };
  const logits = new Float32Array(ROWS * COLUMNS);
  // Each pass reads ROWS columns: the embedding's row t is 16 at column `first + t`.
  for (let first = 0; first < COLUMNS; first += ROWS) {
    const tensors: ModelTensors = {
      embedding: { ...at(identity, ROWS, COLUMNS), offset: first * COLUMNS * 4 },
      layers: [
        {
          inputNorm: at(ones, 1, COLUMNS),
          q: none(32, COLUMNS),
          k: none(32, COLUMNS),
          v: none(32, COLUMNS),
          o: none(COLUMNS, 32),
          latent: null,
          qBias: null,
          kBias: null,
          vBias: null,
          qNorm: null,
          kNorm: null,
          postAttentionNorm: at(ones, 1, COLUMNS),
          gate: none(32, COLUMNS),
          up: none(32, COLUMNS),
          down: none(COLUMNS, 32),
          router: null,
          routerBias: null,
          experts: [],
        },
      ],
      finalNorm: at(ones, 1, COLUMNS),
      head: at(head, ROWS, COLUMNS, dtype),
    };
    const model = native.openModel(shape, tensors, 2);
    await native.prepareLinear(model, linear, null, null);
    const kvCache = native.createKvCache(model, ROWS, 16, 'float32');
    const count = ROWS;
    const output = await native.runStep(model, kvCache, {
      linear,
      tunings: null,
      attention: 'attention.reference',
      attentionTunings: null,
      splitTokens: 512,
      threadCount: 2,
      tokenIds: Int32Array.from({ length: count }, (_, i) => i),
      tokenStarts: Int32Array.from({ length: count + 1 }, (_, i) => i),
      contextLengths: new Int32Array(count),
      blockTables: Int32Array.from({ length: count }, (_, i) => i),
      blockTableStride: 1,
      isSampled: new Uint8Array(count),
      draftCounts: new Int32Array(count),
      temperatures: new Float32Array(count),
      topPs: new Float32Array(count).fill(1),
      topKs: new Int32Array(count),
      minPs: new Float32Array(count),
      seeds: new Uint32Array(2 * count),
      rules: null,
      scoring: null,
      isLogitsWanted: true,
    });
    for (let token = 0; token < count; token += 1) {
      for (let row = 0; row < ROWS; row += 1) {
        logits[row * COLUMNS + first + token] = (output.logits?.[token * ROWS + row] ?? Number.NaN) / 16;
      }
    }
    native.closeKvCache(kvCache);
    native.closeModel(model);
  }
  return logits;
}

/** SHA-256 of the same bytes dequantised by llama.cpp b11434's own plain C (-0 as 0), first 16 hex digits. */
const asLlamaCppDequantises: Readonly<Partial<Record<TensorDtype, string>>> = {
  BF16: 'deef37081f0ad8a8',
  Q8_0: '91de9b5eb5e41e66',
  Q4_0: '1d51d2cd4be411a0',
  Q4_1: 'cde1845cea4b6766',
  Q5_0: '61ec9da93330475f',
  Q5_1: '2314e301228d1264',
  Q4_K: '6249fa61c78400df',
  Q5_K: 'd839d5520499ae99',
  Q6_K: 'f06713e871424e68',
};
const hashOf = (weights: Float32Array) =>
  createHash('sha256')
    .update(Buffer.from(weights.map((weight) => weight + 0).buffer))
    .digest('hex')
    .slice(0, 16);

describe.each(Object.entries(formats) as [TensorDtype, Format][])('%s', (dtype, format) => {
  const bytes = randomBlocks(format, 1, ROWS * COLUMNS);
  const expected = weightsOf(format, bytes).map((weight) => weight + 0);

  test('is dequantised bit for bit as its format says and as llama.cpp does', async () => {
    const actual = (await headColumns(dtype, bytes, 'linear.reference')).map((weight) => weight + 0);
    expect(actual).toEqual(expected);
    expect(hashOf(actual)).toBe(asLlamaCppDequantises[dtype]);
  });

  test('stands in int8 panels as near as they promise', async () => {
    // Others of this kind give the same bits (native-linear.test.ts).
    for (const linear of ['linear.int8-generic', fastest] as const) {
      const actual = await headColumns(dtype, bytes, linear);
      for (let group = 0; group < expected.length; group += 32) {
        const own = expected.subarray(group, group + 32);
        const most = Math.max(...own.map(Math.abs));
        // A step of 256 between the extremes and its rounding; half a unit in half precision's last place.
        const near = (2 * most) / 255 / 2 + most / 1024;
        own.forEach((weight, i) => {
          expect(Math.abs((actual[group + i] ?? Number.NaN) - weight), linear).toBeLessThanOrEqual(
            near * 1.01,
          );
        });
      }
    }
  });
});
