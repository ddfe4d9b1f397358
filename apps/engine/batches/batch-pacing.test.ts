import { describe, expect, test } from 'vitest';
import { generator } from '../cli/workload.ts';
import type { WorkerView } from '../fleet/fleet.ts';
import { type BatchTurn, MOST_OPEN_LINES, nextBatch, openLinesAllowed, RecentPeak } from './batch-pacing.ts';
import { fleetCapacity } from './fleet-capacity.ts';
import { retryPauseMs } from './line-retry.ts';

const view = { slotCount: 16, requestCount: 0, kvUsedShare: 0, openLineCount: 0 };

describe('how many lines may be open', () => {
  test.each([
    ['nothing can be computed', { slotCount: 0 }, 0],
    ['nobody else is there: all places but an eighth', {}, 14],
    ['one request runs: a quarter of the places', { requestCount: 1 }, 4],
    ['requests take most places: what is left but a quarter', { requestCount: 9 }, 3],
    ['requests take all places: one line, which ages in the queue', { requestCount: 16 }, 1],
    ['requests queue up', { requestCount: 200 }, 1],
    ['one place', { slotCount: 1 }, 1],
    ['KV blocks are short: no more than are open', { kvUsedShare: 0.9, openLineCount: 5 }, 5],
    ['KV blocks are short and none is open', { kvUsedShare: 0.9 }, 1],
    ['a very large fleet', { slotCount: 100_000 }, MOST_OPEN_LINES],
  ])('%s', (_name, change, allowed) => {
    expect(openLinesAllowed({ ...view, ...change })).toBe(allowed);
  });

  test('never more beside more requests, and never so many that a request finds no place', () => {
    for (let slotCount = 2; slotCount <= 64; slotCount += 1) {
      let before = Number.POSITIVE_INFINITY;
      for (let requestCount = 0; requestCount <= slotCount * 2; requestCount += 1) {
        const allowed = openLinesAllowed({ ...view, slotCount, requestCount });
        expect(allowed).toBeLessThanOrEqual(before);
        before = allowed;
        if (allowed > 1) expect(allowed + requestCount).toBeLessThan(slotCount);
      }
    }
  });
});

test('the recent peak is the most of the last five seconds, and no more than what is remembered', () => {
  const random = generator(5);
  const peak = new RecentPeak();
  const seen: { at: number; count: number }[] = [];
  for (let at = 0; at < 60_000; at += 1 + Math.floor(random() * 700)) {
    const count = Math.floor(random() * 10);
    seen.push({ at, count });
    const recent = seen.filter((each) => each.at >= at - 5000).map((each) => each.count);
    expect(peak.note(count, at)).toBe(Math.max(...recent));
  }
});

test('the fleet can hold what the live paths of all its workers can, and nothing without any', () => {
  const envelope = { kvBlockCount: 100 } as WorkerView['envelope'];
  const worker = (maxRunningCount: number, kvUsedBlockCount: number) => ({
    envelope,
    path: { maxRunningCount } as WorkerView['path'],
    kvUsedBlockCount,
  });
  expect(fleetCapacity([worker(16, 50), worker(8, 100)])).toEqual({ slotCount: 24, kvUsedShare: 0.75 });
  expect(fleetCapacity([])).toEqual({ slotCount: 0, kvUsedShare: 0 });
});

describe('which batch goes next', () => {
  const turn = (batchId: string, tenant: string, openLineCount: number, lastTurn: number): BatchTurn => ({
    batchId,
    tenant,
    openLineCount,
    lastTurn,
  });

  test('the tenant with the fewest open lines, then the batch with the fewest, then the one that waited longest', () => {
    expect(nextBatch([])).toBeNull();
    expect(nextBatch([turn('a', 'x', 2, 1), turn('b', 'x', 1, 2), turn('c', 'y', 2, 3)])).toBe('c');
    expect(nextBatch([turn('a', 'x', 2, 1), turn('b', 'x', 1, 2), turn('c', 'y', 4, 3)])).toBe('b');
    expect(nextBatch([turn('a', 'x', 1, 5), turn('b', 'x', 1, 2), turn('c', 'x', 1, 3)])).toBe('b');
  });
});

describe('when a line is tried again', () => {
  const full = { status: 429, code: 'rate_limit_exceeded', retryAfterMs: 1000 };
  const lost = { status: 503, code: 'worker_lost', retryAfterMs: 1000 };

  test('what the server cannot do now is tried for ever, at growing pauses up to a bound', () => {
    const pauses = [1, 2, 3, 5, 8, 1000].map((attempt) => retryPauseMs(full, attempt, 0));
    expect(pauses).toEqual([1000, 1000, 2000, 8000, 30_000, 30_000]);
  });

  test('a line that takes its worker along is given up', () => {
    expect(retryPauseMs(lost, 3, 3)).toBe(2000);
    expect(retryPauseMs(lost, 4, 4)).toBeNull();
  });

  test("the line's own faults are not tried again", () => {
    for (const status of [400, 404, 413, 500]) {
      expect(retryPauseMs({ status, code: 'x', retryAfterMs: null }, 1, 0)).toBeNull();
    }
  });
});
