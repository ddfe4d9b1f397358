/**
 * The microbenchmark at load: which tuning each matrix shape is quickest with, by row count, on this machine and with this
 * model; at most LIMIT_MS, once, then kept in a file. Called by cpu-device.ts before the first step; linear-dispatch.ts
 * decides. A file that cannot be read or written is no fault: then it is measured again.
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { LinearVariantId } from '@variator/kernels/catalogue';
import {
  candidateTunings,
  type LinearShape,
  type LinearTunings,
  priorTunings,
  quickestTuning,
  rowBuckets,
  tuningNumbers,
} from '@variator/kernels/linear-dispatch';
import { type ModelHandle, type NativeKernels, nativeFile } from '@variator/kernels/native';
import { z } from 'zod';

/** Of all row counts together. */
const LIMIT_MS = 2000;
const SAMPLE_COUNT = 9;
/** Fewer say nothing. */
const LEAST_SAMPLE_COUNT = 5;
const MOST_FILES = 64;

const tuning = z.object({
  rowsAtOnce: z.int(),
  prefetchGroups: z.int(),
  slabRows: z.int(),
  panelsAtOnce: z.int(),
});
const kept = z.object({ key: z.string(), tunings: z.array(z.array(tuning).length(rowBuckets.length)) });

export interface TuningsOf {
  readonly native: Pick<NativeKernels, 'linearShapes' | 'timeLinear'>;
  readonly handle: ModelHandle;
  readonly linear: LinearVariantId;
  readonly threadCount: number;
  /** Where it is kept; null: nowhere. */
  readonly file: string | null;
  /** Tells this machine and model from all others; the native code's own hash is added. */
  readonly key: string;
}

/** [rows, columns] of the model's distinct matrices, in the native side's order. */
export function linearShapesOf(
  native: Pick<NativeKernels, 'linearShapes'>,
  handle: ModelHandle,
): LinearShape[] {
  const sizes = native.linearShapes(handle);
  return Array.from({ length: sizes.length / 2 }, (_, index) => [
    sizes[2 * index] ?? 0,
    sizes[2 * index + 1] ?? 0,
  ]);
}

/** What was kept for exactly this, or null. */
export function keptTunings(of: TuningsOf): LinearTunings | null {
  if (of.file === null) return null;
  try {
    const { key, tunings } = kept.parse(JSON.parse(readFileSync(of.file, 'utf8')));
    const shapeCount = of.native.linearShapes(of.handle).length / 2;
    return key === fullKey(of) && tunings.length === shapeCount ? tunings : null;
  } catch {
    return null;
  }
}

/** Measures, and keeps what came of it. Steps wait meanwhile. */
export async function measureTunings(of: TuningsOf): Promise<LinearTunings> {
  const { native, handle, linear, threadCount } = of;
  const shapes = linearShapesOf(native, handle);
  const prior = priorTunings(shapes);
  const chosen = prior.map((buckets) => [...buckets]);
  const start = performance.now();
  for (const [bucket, rowCount] of rowBuckets.entries()) {
    const leftMs = LIMIT_MS - (performance.now() - start);
    if (leftMs <= 0) break;
    const candidates = candidateTunings(shapes, rowCount);
    const { usPerPanel, sampleCounts } = await native.timeLinear(
      handle,
      linear,
      threadCount,
      rowCount,
      Int32Array.from(candidates.flatMap(tuningNumbers)),
      SAMPLE_COUNT,
      // The larger half of what is left is for the row counts to come, which take longer.
      bucket === rowBuckets.length - 1 ? leftMs : leftMs / 2,
    );
    for (const [index, tunings] of chosen.entries()) {
      const first = index * candidates.length;
      const us = candidates.map((_, i) =>
        (sampleCounts[first + i] ?? 0) < LEAST_SAMPLE_COUNT
          ? Number.NaN
          : (usPerPanel[first + i] ?? Number.NaN),
      );
      const own = tunings[bucket];
      if (own !== undefined) tunings[bucket] = quickestTuning(own, candidates, us);
    }
  }
  keep(of, chosen);
  return chosen;
}

function keep(of: TuningsOf, tunings: LinearTunings): void {
  if (of.file === null) return;
  try {
    // Whole or not at all, also beside another worker that writes the same.
    const part = `${of.file}.${process.pid}`;
    writeFileSync(part, JSON.stringify({ key: fullKey(of), tunings }), { mode: 0o600 });
    renameSync(part, of.file);
    tidy(dirname(of.file));
  } catch {
    // A full or read-only disk: the next start measures again.
  }
}

function tidy(folder: string): void {
  const files = readdirSync(folder)
    .filter((name) => name.includes('.tunings'))
    .map((name) => ({ path: join(folder, name), at: statSync(join(folder, name)).mtimeMs }))
    .sort((a, b) => b.at - a.at);
  for (const { path } of files.slice(MOST_FILES)) rmSync(path, { force: true });
}

function fullKey({ key, linear, threadCount }: TuningsOf): string {
  const code = createHash('sha256').update(readFileSync(nativeFile)).digest('hex').slice(0, 16);
  return `${key} ${linear} ${threadCount} ${code}`;
}
