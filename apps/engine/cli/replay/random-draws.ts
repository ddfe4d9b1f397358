/** Seeded draws from the distributions that traffic is made of: gaps, lengths, choices. Pure; `random` is uniform in [0, 1). */

export type Random = () => number;

export interface ArrivalShape {
  readonly family: 'Gamma' | 'Weibull' | 'Exponential';
  readonly shape: number;
}

/** A gap with this mean. The family's own scale is left aside: with a shape far from 1 it was fitted badly to the rate. */
export function drawGap({ family, shape }: ArrivalShape, mean: number, random: Random): number {
  // Below it, nearly all gaps are 0 and the mean hangs on draws that never come.
  const bounded = Math.max(0.05, shape);
  if (family === 'Gamma') return (mean / bounded) * drawGamma(bounded, random);
  if (family === 'Weibull') {
    return (mean / gammaFunction(1 + 1 / bounded)) * drawExponential(random) ** (1 / bounded);
  }
  return mean * drawExponential(random);
}

export const drawExponential = (random: Random): number => -Math.log(1 - random());

export function drawNormal(random: Random): number {
  return Math.sqrt(2 * drawExponential(random)) * Math.cos(2 * Math.PI * random());
}

/** Half of the draws are below the median; `sigma` is that of the logarithm. */
export const drawLogNormal = (median: number, sigma: number, random: Random): number =>
  median * Math.exp(sigma * drawNormal(random));

/** Marsaglia and Tsang, 2000; of scale 1. */
function drawGamma(shape: number, random: Random): number {
  if (shape < 1) return drawGamma(shape + 1, random) * (1 - random()) ** (1 / shape);
  const d = shape - 1 / 3;
  const c = 1 / Math.sqrt(9 * d);
  for (;;) {
    const x = drawNormal(random);
    const v = (1 + c * x) ** 3;
    if (v > 0 && Math.log(1 - random()) < x * x * 0.5 + d - d * v + d * Math.log(v)) return d * v;
  }
}

/** Lanczos' approximation, for arguments of at least 1. */
function gammaFunction(x: number): number {
  const coefficients = [
    676.5203681218851, -1259.1392167224028, 771.3234287776531, -176.6150291621406, 12.507343278686905,
    -0.13857109526572012, 9.984369578019572e-6, 1.5056327351493116e-7,
  ];
  const z = x - 1;
  const series = coefficients.reduce((sum, c, index) => sum + c / (z + index + 1), 0.9999999999998099);
  const t = z + coefficients.length - 0.5;
  return Math.sqrt(2 * Math.PI) * t ** (z + 0.5) * Math.exp(-t) * series;
}

export interface Histogram {
  readonly values: readonly number[];
  /** Of the values up to and with this one; the last is 1. */
  readonly shares: readonly number[];
}

/** From the text of a Python dict {value: probability}; null where it holds nothing. */
export function histogram(text: unknown): Histogram | null {
  if (typeof text !== 'string') return null;
  const pairs = [...text.matchAll(/(\d+(?:\.\d+)?):\s*([\d.]+(?:e[-+]?\d+)?)/gi)]
    .map(([, value, share]) => ({ value: Number(value), share: Number(share) }))
    .filter(({ share }) => share > 0);
  const total = pairs.reduce((sum, { share }) => sum + share, 0);
  if (!(total > 0)) return null;
  let passed = 0;
  const shares = pairs.map(({ share }) => {
    passed += share;
    return passed / total;
  });
  return { values: pairs.map(({ value }) => value), shares };
}

export function drawValue({ values, shares }: Histogram, random: Random): number {
  const at = random();
  let low = 0;
  let high = shares.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((shares[middle] ?? 1) > at) high = middle;
    else low = middle + 1;
  }
  return values[low] ?? 0;
}

/** FNV-1a, 32 bits: one seed from a name. */
export function textHash(text: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  }
  return hash >>> 0;
}
