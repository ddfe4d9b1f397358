/** The geometric mean of paired ratios with its 95 % bootstrap interval: pairs redrawn from a fixed seed. */

export interface RatioInterval {
  readonly mean: number;
  readonly low: number;
  readonly high: number;
  readonly count: number;
}

const REDRAWS = 2000;

export function ratioInterval(ratios: readonly number[]): RatioInterval {
  const logs = ratios.map(Math.log);
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  let state = 20_261_126;
  const redrawn = Array.from({ length: REDRAWS }, () =>
    mean(
      logs.map(() => {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        return logs[Math.floor((state / 2 ** 32) * logs.length)] ?? 0;
      }),
    ),
  ).sort((a, b) => a - b);
  const at = (share: number) => Math.exp(redrawn[Math.floor(share * (REDRAWS - 1))] ?? Number.NaN);
  return { mean: Math.exp(mean(logs)), low: at(0.025), high: at(0.975), count: ratios.length };
}
