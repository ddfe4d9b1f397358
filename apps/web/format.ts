/**
 * Numbers become words here and nowhere else: durations, rates, money, shares, changes and times as people read them.
 * Called by pages and charts. Decides no colour and no layout; null is always a dash, never a zero.
 */
export const DASH = '–';
const MINUS = '−';
const DAY_MS = 24 * 3_600_000;

const grouped = (fractionDigits: number): Intl.NumberFormat =>
  new Intl.NumberFormat('en-US', {
    minimumFractionDigits: fractionDigits,
    maximumFractionDigits: fractionDigits,
  });
const whole = grouped(0);
const oneDecimal = grouped(1);
const twoDecimals = grouped(2);

/** `1,240`; below 10 with one decimal where it has one. */
export function formatCount(value: number | null): string {
  if (value === null) return DASH;
  return Math.abs(value) < 10 && !Number.isInteger(value) ? oneDecimal.format(value) : whole.format(value);
}

/** `1.2 ms`, `184 ms`, `2.41 s`, `3 min 20 s`. */
export function formatMs(durationMs: number | null): string {
  if (durationMs === null) return DASH;
  if (durationMs < 9.95) return `${oneDecimal.format(durationMs)} ms`;
  if (durationMs < 999.5) return `${whole.format(durationMs)} ms`;
  if (durationMs < 59_995) return `${twoDecimals.format(durationMs / 1000)} s`;
  return formatAge(durationMs);
}

/** Whole durations in words: `1 s`, `3 min 20 s`, `2 h 5 min`, `3 d`. */
export function formatAge(durationMs: number): string {
  const seconds = Math.max(0, Math.floor(durationMs / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 10 && seconds % 60 > 0) return `${minutes} min ${seconds % 60} s`;
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 > 0 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} d`;
}

/** `just now`, `3 min ago`; the date from a day on. */
export function formatAgo(at: number, now: number): string {
  const ageMs = now - at;
  if (ageMs < 2000) return 'just now';
  if (ageMs >= DAY_MS) return formatDateTime(at);
  return `${formatAge(ageMs < 600_000 ? ageMs - (ageMs % (ageMs < 60_000 ? 1000 : 60_000)) : ageMs)} ago`;
}

/** `1,240 tok/s`. */
export function formatTokensPerSecond(value: number | null): string {
  return value === null ? DASH : `${formatCount(value)} tok/s`;
}

/** `$0.42`; small sums keep two significant digits. */
export function formatUsd(value: number | null): string {
  if (value === null) return DASH;
  if (value === 0) return '$0.00';
  if (Math.abs(value) >= 0.1) return `$${twoDecimals.format(value)}`;
  return `$${new Intl.NumberFormat('en-US', { maximumSignificantDigits: 2 }).format(value)}`;
}

/** `840 J`, `12.4 Wh`, `3.21 kWh`. */
export function formatEnergy(joules: number | null): string {
  if (joules === null) return DASH;
  if (joules < 3600) return `${formatCount(Math.round(joules))} J`;
  const wattHours = joules / 3600;
  return wattHours < 1000
    ? `${oneDecimal.format(wattHours)} Wh`
    : `${twoDecimals.format(wattHours / 1000)} kWh`;
}

/** `99.2 %`; 1 is `100 %`, and nothing below it is rounded up to that. */
export function formatShare(share: number | null): string {
  if (share === null) return DASH;
  if (share === 1 || share === 0) return `${share * 100} %`;
  const percent = Math.min(99.9, Math.max(0.1, share * 100));
  return `${oneDecimal.format(percent)} %`;
}

/** `4.2 %`, `143 %`: how far something is off, which may be more than all of it. */
export function formatError(error: number | null): string {
  if (error === null) return DASH;
  const percent = error * 100;
  return `${(percent < 99.95 ? oneDecimal : whole).format(percent)} %`;
}

/** `+12 %`, `−3.4 %`, `0 %`: a relative change, one decimal below ten per cent. */
export function formatChange(change: number | null): string {
  if (change === null) return DASH;
  const percent = Math.abs(change) * 100;
  const digits = percent < 9.95 ? oneDecimal.format(percent).replace(/\.0$/, '') : whole.format(percent);
  if (digits === '0') return '0 %';
  return `${change < 0 ? MINUS : '+'}${digits} %`;
}

/** `−18 to −9 %`. */
export function formatChangeRange(low: number | null, high: number | null): string {
  if (low === null || high === null) return DASH;
  return `${formatChange(low).replace(/ %$/, '')} to ${formatChange(high)}`;
}

/** `1.4x`. */
export function formatFactor(factor: number | null): string {
  return factor === null
    ? DASH
    : `${factor < 10 ? twoDecimals.format(factor).replace(/0$/, '') : whole.format(factor)}x`;
}

/** Local time of day, `14:02:11`. */
export function formatClock(at: number): string {
  return new Date(at).toLocaleTimeString('en-GB', { hour12: false });
}

/** Local time for an axis: with seconds only where it is that fine, the day alone from a day on. */
export function formatAxisTime(at: number, stepMs: number): string {
  if (stepMs >= DAY_MS) return formatDay(at);
  const clock = formatClock(at);
  return stepMs < 60_000 ? clock : clock.slice(0, 5);
}

/** `22 Nov, 14:02`. */
export function formatDateTime(at: number): string {
  return `${formatDay(at)}, ${formatClock(at).slice(0, 5)}`;
}

/** A moment of a chart that spans so long: with its day where there is more than one. */
export function formatMoment(at: number, spanMs: number): string {
  return spanMs > DAY_MS ? formatDateTime(at) : formatClock(at);
}

function formatDay(at: number): string {
  return new Date(at).toLocaleDateString('en-GB', { day: 'numeric', month: 'short' });
}

/** For a hover: date, time of day and zone. */
export function formatFullTime(at: number): string {
  return new Date(at).toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'long' });
}

/** A path's or rollout's id as people compare it: its first eight digits. */
export function formatId(id: string): string {
  return id === '' ? DASH : id.slice(0, 8);
}
