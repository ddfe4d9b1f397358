/**
 * ServeGen folders: for each client `chunk-N-trace.csv` (rate and shape of its arrivals in windows of ten minutes) and
 * `chunk-N-dataset.json` (distributions of its lengths in windows of six hours). Not requests but what to draw them from:
 * seeded draws, all clients merged by time. Prompts share nothing. One window of one client is in memory at a time.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { generator } from '../workload.ts';
import { jsonOf } from './mooncake-trace.ts';
import type { PlannedSession, TraceFaults, TrafficSource } from './planned-traffic.ts';
import {
  type ArrivalShape,
  drawGap,
  drawValue,
  type Histogram,
  histogram,
  textHash,
} from './random-draws.ts';

interface RateWindow {
  readonly startMs: number;
  readonly endMs: number;
  readonly ratePerSecond: number;
  readonly shape: ArrivalShape;
}

interface LengthWindow {
  readonly startMs: number;
  readonly input: Histogram;
  readonly output: Histogram;
}

const traceName = /^chunk-(\d+)-trace\.csv$/;
const datasetName = (number: string) => `chunk-${number}-dataset.json`;
const DEFAULT_WINDOW_MS = 600_000;

export const isServeGenFolder = (path: string): boolean =>
  readdirSync(path).some((name) => traceName.test(name));

/** @param fromMs requests before it are not drawn */
export function serveGenTrace(
  folder: string,
  seed: number,
  fromMs: number,
  faults: TraceFaults,
): TrafficSource {
  const numbers = readdirSync(folder)
    .flatMap((name) => traceName.exec(name)?.[1] ?? [])
    .sort((a, b) => Number(a) - Number(b));
  const known = numbers.filter((number) => {
    if (existsSync(join(folder, datasetName(number)))) return true;
    faults.add('a client without its dataset of lengths (left out)', `chunk-${number}-trace.csv`);
    return false;
  });
  const clients = known.map((number) => ({
    number,
    windows: rateWindows(join(folder, `chunk-${number}-trace.csv`), faults),
  }));
  const endMs = Math.max(0, ...clients.map(({ windows }) => windows.at(-1)?.endMs ?? 0));
  let latestMs = fromMs;
  async function* sessions(): AsyncGenerator<PlannedSession> {
    const streams = clients.map(({ number, windows }) =>
      clientRequests(folder, number, windows, seed, fromMs, faults),
    );
    for (const session of merged(streams)) {
      latestMs = session.startsAtMs;
      yield session;
    }
  }
  return {
    faults,
    sessions: sessions(),
    remarks: () => [
      `${known.length} clients' requests were drawn from their distributions with seed ${seed}.`,
    ],
    readShare: () => (endMs > fromMs ? (latestMs - fromMs) / (endMs - fromMs) : null),
  };
}

function rateWindows(path: string, faults: TraceFaults): RateWindow[] {
  const rows = readFileSync(path, 'utf8').split('\n');
  const starts: { startMs: number; ratePerSecond: number; shape: ArrivalShape }[] = [];
  for (const [index, text] of rows.entries()) {
    if (text.trim() === '') continue;
    const [start = '', rate = '', , family = '', shape = '', ...more] = text.trim().split(',');
    const numbers = [Number(start), Number(rate), Number(shape)];
    const isWindow =
      start !== '' && rate !== '' && more.length === 1 && numbers.every((n) => Number.isFinite(n) && n >= 0);
    if (!isWindow) {
      faults.add('a line that is no window of arrivals', `${basename(path)}:${index + 1}`);
      continue;
    }
    starts.push({
      startMs: Number(start) * 1000,
      ratePerSecond: Number(rate),
      shape: {
        family: family === 'Gamma' || family === 'Weibull' ? family : 'Exponential',
        shape: Number(shape),
      },
    });
  }
  starts.sort((a, b) => a.startMs - b.startMs);
  return starts.map((window, index) => ({
    ...window,
    endMs: starts[index + 1]?.startMs ?? window.startMs + DEFAULT_WINDOW_MS,
  }));
}

function* clientRequests(
  folder: string,
  number: string,
  windows: readonly RateWindow[],
  seed: number,
  fromMs: number,
  faults: TraceFaults,
): Generator<PlannedSession> {
  const random = generator(textHash(`${seed}/servegen/${number}`));
  let lengths: LengthWindow | null = null;
  let count = 0;
  for (const window of windows) {
    if (window.ratePerSecond === 0 || window.endMs <= fromMs) continue;
    if (lengths === null || lengthsStart(window.startMs) !== lengths.startMs) {
      lengths = lengthWindow(join(folder, datasetName(number)), window.startMs);
    }
    if (lengths === null) {
      faults.add('a window of arrivals without lengths (left out)', `${datasetName(number)}`);
      continue;
    }
    let atMs = window.startMs;
    for (;;) {
      atMs += 1000 * drawGap(window.shape, 1 / window.ratePerSecond, random);
      if (atMs >= window.endMs) break;
      const tokenCount = Math.max(1, Math.round(drawValue(lengths.input, random)));
      const outputTokenCount = Math.max(1, Math.round(drawValue(lengths.output, random)));
      if (atMs < fromMs) continue;
      count += 1;
      const sessionId = `servegen-${number}-${count}`;
      const prompt = { kind: 'parts' as const, parts: [{ key: sessionId, tokenCount, answerOf: null }] };
      yield {
        sessionId,
        programId: `servegen-${number}`,
        serviceTier: '',
        startsAtMs: atMs,
        turns: [{ pauseMs: 0, prompt, outputTokenCount }],
      };
    }
  }
}

const LENGTHS_MS = 21_600_000;
const lengthsStart = (ms: number): number => Math.floor(ms / LENGTHS_MS) * LENGTHS_MS;

/** null where nothing was recorded then. */
function lengthWindow(path: string, atMs: number): LengthWindow | null {
  const startMs = lengthsStart(atMs);
  const all = jsonOf(readFileSync(path, 'utf8')) as Record<string, Record<string, unknown>> | null;
  const window = all?.[String(startMs / 1000)];
  const [input, output] = [histogram(window?.input_tokens), histogram(window?.output_tokens)];
  return input === null || output === null ? null : { startMs, input, output };
}

/** By time; a handful of clients, so the least is looked for each time. */
function* merged(streams: readonly Generator<PlannedSession>[]): Generator<PlannedSession> {
  const heads = streams.map((stream) => stream.next());
  for (;;) {
    let least = -1;
    let leastMs = Number.POSITIVE_INFINITY;
    for (const [index, head] of heads.entries()) {
      if (head.done === true || head.value.startsAtMs >= leastMs) continue;
      least = index;
      leastMs = head.value.startsAtMs;
    }
    const head = heads[least];
    const stream = streams[least];
    if (stream === undefined || head === undefined || head.done === true) return;
    yield head.value;
    heads[least] = stream.next();
  }
}
