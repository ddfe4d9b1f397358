/** What a bench prints: figures with their goals, as a table, as JSON, and as `N met, N missed`. */

export interface Figure {
  readonly figure: string;
  /** For people: ">= 2.0", "< 8 s"; '' where it only informs. */
  readonly goal: string;
  readonly measured: string;
  /** Median and interval in words, or how often it was measured. */
  readonly interval: string;
  /** Null where there is no goal. */
  readonly isMet: boolean | null;
}

/** Median and the central 90 % of samples. */
export interface Spread {
  readonly median: number;
  readonly low: number;
  readonly high: number;
  readonly count: number;
}

export function spread(samples: readonly number[]): Spread {
  const sorted = [...samples].sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.round(share * (sorted.length - 1))] ?? Number.NaN;
  return { median: at(0.5), low: at(0.05), high: at(0.95), count: sorted.length };
}

/** Ratios of pairs measured one right after the other, so that a drift of the machine cancels. */
export function pairedRatio(a: readonly number[], b: readonly number[]): Spread {
  return spread(a.map((value, index) => value / (b[index] ?? Number.NaN)));
}

export const words = ({ low, high, count }: Spread, unit: string, digits = 2): string =>
  `${low.toFixed(digits)} to ${high.toFixed(digits)} ${unit}, ${count} samples`.replace('  ', ' ');

/** @param isGood compares the median with the goal; null for figures without one */
export function figure(
  name: string,
  measured: Spread,
  unit: string,
  goal: string,
  isGood: ((median: number) => boolean) | null,
  digits = 2,
): Figure {
  return {
    figure: name,
    goal,
    measured: `${measured.median.toFixed(digits)} ${unit}`.trim(),
    interval: words(measured, unit, digits),
    isMet: isGood ? isGood(measured.median) : null,
  };
}
