/**
 * Whether a machine has come to take another time for the same steps (algorithms.md c, "residual drift"): CUSUM over blocks
 * of log(measured / predicted) by one fit held still, each step against those of its own batch shape, so that a changed
 * workload is no drift. Then old samples are wrong and the fit is made anew; nothing is searched. Called by the service's
 * fit round. Pure; one state a path.
 */

interface Side {
  readonly height: number;
  /** Since it last stood at zero: the first block's start, how many, and their sum. */
  readonly since: number;
  readonly blockCount: number;
  readonly sum: number;
}

export interface ResidualDrift {
  /** What the fit leaves of each batch shape. */
  readonly byShape: Readonly<Record<string, { readonly count: number; readonly mean: number }>>;
  readonly block: { readonly startedAt: number; readonly count: number; readonly sum: number };
  readonly blockCount: number;
  /** Of a block's mean about zero. */
  readonly blockVariance: number;
  readonly up: Side;
  readonly down: Side;
}

export interface DriftAlarm {
  /** Steps from here on are of the machine as it is now; epoch ms. */
  readonly since: number;
  /** Natural logarithm of how much longer they take. */
  readonly logRatio: number;
}

export interface JudgedStep {
  readonly at: number;
  /** bucketOf its features. */
  readonly shape: string;
  /** log(measured / predicted). */
  readonly logRatio: number;
}

const BLOCK_STEPS = 64;
/** A shape's mean is not known before so many steps, and follows no faster than this. */
const LEAST_OF_SHAPE = 8;
const MOST_OF_SHAPE = 2048;
const MOST_LOG_RATIO = 0.7;
const SLACK = 0.5;
const LIMIT = 8;
const CLIP = 4;
/** Of a block, before any was seen, and at best: clocks follow the heat by 0.7 %. */
const EXPECTED_SPREAD = 0.02;
const LEAST_SPREAD = 0.015;
const EXPECTED_WEIGHT = 10;
const SPREAD_BLOCKS = 200;
/** Less is worth no new fit. */
const MATERIAL = 0.05;

const LEVEL: Side = { height: 0, since: 0, blockCount: 0, sum: 0 };
const NO_BLOCK = { startedAt: 0, count: 0, sum: 0 };
export const NO_DRIFT: ResidualDrift = {
  byShape: {},
  block: NO_BLOCK,
  blockCount: 0,
  blockVariance: 0,
  up: LEVEL,
  down: LEVEL,
};

/** Undisturbed steps, oldest first. After an alarm start from NO_DRIFT, with the fit that was made anew. */
export function driftAfter(
  before: ResidualDrift,
  steps: readonly JudgedStep[],
): { readonly drift: ResidualDrift; readonly alarm: DriftAlarm | null } {
  const byShape = { ...before.byShape };
  let drift: ResidualDrift = { ...before, byShape };
  let alarm: DriftAlarm | null = null;
  for (const { at, shape, logRatio } of steps) {
    if (!Number.isFinite(logRatio)) continue;
    const ratio = clip(logRatio, MOST_LOG_RATIO);
    const known = byShape[shape] ?? { count: 0, mean: 0 };
    const count = known.count + 1;
    byShape[shape] = { count, mean: known.mean + (ratio - known.mean) / Math.min(count, MOST_OF_SHAPE) };
    if (known.count < LEAST_OF_SHAPE) continue;
    const { block } = drift;
    const grown = {
      startedAt: block.count === 0 ? at : block.startedAt,
      count: block.count + 1,
      sum: block.sum + ratio - known.mean,
    };
    drift = { ...drift, block: grown };
    if (grown.count < BLOCK_STEPS) continue;
    drift = afterBlock(drift, grown.startedAt, grown.sum / grown.count);
    alarm ??= alarmOf(drift.up, 1) ?? alarmOf(drift.down, -1);
  }
  return { drift, alarm };
}

function afterBlock(drift: ResidualDrift, startedAt: number, mean: number): ResidualDrift {
  const { blockCount, blockVariance, up, down } = drift;
  const variance =
    (EXPECTED_WEIGHT * EXPECTED_SPREAD ** 2 + blockCount * blockVariance) / (EXPECTED_WEIGHT + blockCount);
  const spread = Math.max(LEAST_SPREAD, Math.sqrt(variance));
  const clipped = clip(mean, CLIP * spread);
  const weight = 1 / Math.min(blockCount + 1, SPREAD_BLOCKS);
  const side = (of: Side, sign: 1 | -1): Side => {
    const height = Math.max(0, of.height + (sign * clipped) / spread - SLACK);
    if (height === 0) return LEVEL;
    const since = of.height === 0 ? startedAt : of.since;
    return { height, since, blockCount: of.blockCount + 1, sum: of.sum + mean };
  };
  return {
    ...drift,
    block: NO_BLOCK,
    blockCount: blockCount + 1,
    blockVariance: blockVariance + weight * (clipped ** 2 - blockVariance),
    up: side(up, 1),
    down: side(down, -1),
  };
}

function alarmOf({ height, since, blockCount, sum }: Side, sign: 1 | -1): DriftAlarm | null {
  const logRatio = sum / Math.max(1, blockCount);
  return height > LIMIT && sign * logRatio > MATERIAL ? { since, logRatio } : null;
}

const clip = (value: number, most: number): number => Math.min(most, Math.max(-most, value));
