/**
 * Where an axis puts its ticks: at most five, on round numbers or round times. Pure; called by the charts. Formats
 * nothing.
 */
const MOST_TICKS = 5;

/** Round ticks from zero to at least `most`, at most five of them. */
export function rateTicks(most: number): number[] {
  if (!(most > 0)) return [0, 1];
  const magnitude = 10 ** Math.floor(Math.log10(most));
  for (const step of [0.25, 0.5, 1, 2, 2.5, 5, 10].map((factor) => factor * magnitude)) {
    const count = Math.ceil(most / step - 1e-9);
    if (count <= MOST_TICKS - 1)
      return Array.from({ length: count + 1 }, (_, index) => cleared(index * step));
  }
  return [0, most];
}

/** Round ticks around zero that cover a span with values on either side, at most six of them. */
export function signedTicks(least: number, most: number): number[] {
  const span = Math.max(most, 0) - Math.min(least, 0);
  if (!(span > 0)) return [0, 1];
  const magnitude = 10 ** Math.floor(Math.log10(span));
  const step =
    [0.1, 0.2, 0.25, 0.5, 1].map((factor) => factor * magnitude).find((size) => span / size <= 4) ?? span;
  const first = Math.floor(Math.min(least, 0) / step + 1e-9);
  const last = Math.ceil(Math.max(most, 0) / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, index) => cleared((first + index) * step));
}

/** Powers of ten around a span of positive values. */
export function logTicks(least: number, most: number): number[] {
  const first = Math.floor(Math.log10(least));
  const last = Math.max(first + 1, Math.ceil(Math.log10(most)));
  const stride = Math.ceil((last - first) / (MOST_TICKS - 1));
  const ticks: number[] = [];
  for (let power = first; power < last + stride; power += stride) ticks.push(cleared(10 ** power));
  return ticks;
}

/** What is nearer than a twentieth should look near. */
const LEAST_SPAN = 0.05;

/** Round ticks around a span that need not hold zero, at most five of them; for latencies and costs of what is compared. */
export function spanTicks(lowest: number, highest: number): number[] {
  const lacking = Math.max(0, LEAST_SPAN * Math.abs(highest) - (highest - lowest)) / 2;
  const [least, most] = [lowest - lacking, highest + lacking];
  const magnitude = 10 ** Math.floor(Math.log10(most - least || 1));
  for (const step of [0.1, 0.2, 0.25, 0.5, 1, 2, 2.5, 5, 10].map((factor) => factor * magnitude)) {
    const first = Math.floor(least / step + 1e-9);
    const last = Math.max(first + 1, Math.ceil(most / step - 1e-9));
    if (last - first > MOST_TICKS - 1) continue;
    return Array.from({ length: last - first + 1 }, (_, index) => cleared((first + index) * step));
  }
  return [least, most];
}

/** Ticks on 1, 2 and 5 of every power of ten within a span of positive values; fewer of them where they are many. */
export function fineLogTicks(least: number, most: number): number[] {
  const inSpan = (factors: readonly number[]): number[] => {
    const ticks: number[] = [];
    for (let power = Math.floor(Math.log10(least)); power <= Math.ceil(Math.log10(most)); power += 1) {
      for (const factor of factors) {
        const tick = cleared(factor * 10 ** power);
        if (tick >= least && tick <= most) ticks.push(tick);
      }
    }
    return ticks;
  };
  const fitting = [[1, 2, 5], [1, 3], [1]].map(inSpan).find((ticks) => ticks.length <= MOST_TICKS);
  return fitting ?? logTicks(least, most).filter((tick) => tick >= least && tick <= most);
}

const timeStepsMs: readonly number[] = [
  10_000, 30_000, 60_000, 120_000, 300_000, 600_000, 900_000, 1_800_000, 3_600_000, 7_200_000, 14_400_000,
  21_600_000, 43_200_000, 86_400_000, 172_800_000, 604_800_000, 1_209_600_000,
];
const LONGEST_STEP_MS = 2_592_000_000;

/** The step between ticks of time. */
export function timeStepMs(fromMs: number, toMs: number): number {
  return timeStepsMs.find((step) => (toMs - fromMs) / step <= MOST_TICKS) ?? LONGEST_STEP_MS;
}

/** Ticks on round local times. */
export function timeTicks(fromMs: number, toMs: number): number[] {
  const step = timeStepMs(fromMs, toMs);
  const zoneMs = new Date(fromMs).getTimezoneOffset() * 60_000;
  const ticks: number[] = [];
  for (let at = Math.ceil((fromMs - zoneMs) / step) * step + zoneMs; at <= toMs; at += step) ticks.push(at);
  return ticks.slice(-MOST_TICKS);
}

/** Takes off what binary fractions add: 0.30000000000000004 becomes 0.3. */
function cleared(value: number): number {
  return Number(value.toPrecision(12));
}
