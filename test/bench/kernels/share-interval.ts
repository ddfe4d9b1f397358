/**
 * The share of positions at which something holds, with its 95 % interval where positions come in groups (the tokens of one
 * prompt, say) that are alike inside: Wilson's interval (JASA 22, 1927) at the effective sample size (Kish, Survey Sampling,
 * 1965). Stands where all agree, too.
 */

export interface ShareInterval {
  readonly share: number;
  readonly low: number;
  readonly high: number;
  readonly count: number;
}

export interface Group {
  readonly hits: number;
  readonly count: number;
}

const Z = 1.959964;

/** NaN of nothing. */
export function shareInterval(groups: readonly Group[]): ShareInterval {
  const filled = groups.filter(({ count }) => count > 0);
  const count = filled.reduce((sum, group) => sum + group.count, 0);
  const share = filled.reduce((sum, group) => sum + group.hits, 0) / count;
  const { low, high } = wilson(share, count / designEffect(filled, share, count));
  return { share, low, high, count };
}

/** How many times the variance of as many independent positions; never below 1. */
function designEffect(groups: readonly Group[], share: number, count: number): number {
  const independent = (share * (1 - share)) / (count - 1);
  if (!(independent > 0) || groups.length < 2) return 1;
  const residuals = groups.reduce((sum, group) => sum + (group.hits - share * group.count) ** 2, 0);
  const grouped = (residuals * groups.length) / (groups.length - 1) / count ** 2;
  return Math.max(1, grouped / independent);
}

function wilson(share: number, count: number): { low: number; high: number } {
  const shrink = 1 + Z ** 2 / count;
  const centre = (share + Z ** 2 / (2 * count)) / shrink;
  const half = (Z / shrink) * Math.sqrt((share * (1 - share)) / count + Z ** 2 / (4 * count ** 2));
  return { low: Math.max(0, centre - half), high: Math.min(1, centre + half) };
}
