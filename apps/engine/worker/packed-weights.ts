/**
 * Where packed weights are kept between starts: a file for each model and kind of panels in the data folder, the newest
 * ones up to a limit. Used by cpu-device.ts; native/packed_file.cc writes, checks and maps them. A folder that cannot be
 * made or tidied is no fault: then nothing is kept.
 */
import { mkdirSync, readdirSync, rmSync, statSync, utimesSync } from 'node:fs';
import { join } from 'node:path';

/** Of all files together; the one in use stays whatever its size. */
export const PACKED_WEIGHTS_LIMIT_BYTES = 16 * 2 ** 30;
/** A part of a file that its writer did not live to finish. */
const ABANDONED_AFTER_MS = 3_600_000;

/** Makes the folder. @returns the file, or null where there can be none */
export function packedWeightsFile(folder: string, modelHash: string, kind: string): string | null {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    return join(folder, `${modelHash}-${kind}.panels`);
  } catch {
    return null;
  }
}

/** Marks `file` as just used and removes what was used longest ago beyond the limit. @returns the names removed */
export function tidyPackedWeights(
  folder: string,
  file: string,
  now: number,
  limitBytes = PACKED_WEIGHTS_LIMIT_BYTES,
): string[] {
  const removed: string[] = [];
  try {
    const seconds = now / 1000;
    utimesSync(file, seconds, seconds);
    const found = readdirSync(folder)
      .map((name) => ({ name, path: join(folder, name), ...sizeAndTime(join(folder, name)) }))
      .sort((a, b) => b.usedAt - a.usedAt);
    let total = 0;
    for (const { name, path, size, usedAt } of found) {
      const isPanels = name.endsWith('.panels');
      if (isPanels) total += size;
      const isSuperfluous = isPanels
        ? total > limitBytes && path !== file
        : name.includes('.panels.') && now - usedAt > ABANDONED_AFTER_MS;
      if (!isSuperfluous) continue;
      if (isPanels) total -= size;
      rmSync(path, { force: true });
      removed.push(name);
    }
  } catch {
    // Another worker tidies at the same time, or the disk is full or read-only: the next start tries again.
  }
  return removed;
}

function sizeAndTime(path: string): { size: number; usedAt: number } {
  const { size, mtimeMs } = statSync(path);
  return { size, usedAt: mtimeMs };
}
