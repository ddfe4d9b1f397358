import { expect, test } from 'vitest';
import { WorkerProgress } from './worker-progress.ts';

const worker = (workerId: string, runningCount: number) => ({
  workerId,
  bootId: 'boot',
  runningCount,
  waitingCount: 0,
});
const step = (workerId: string, stepId: number, kind: 'serve' | 'calibration' = 'serve') => ({
  workerId,
  bootId: 'boot',
  kind,
  stepId,
});

test('a worker with work and no step for long is stalled, and a step ends that', () => {
  const progress = new WorkerProgress();
  expect(progress.stalledReason([worker('a', 0)], 1000)).toBe('');
  expect(progress.stalledReason([worker('a', 3)], 20_000)).toBe('');
  expect(progress.stalledReason([worker('a', 3)], 55_000)).toContain(
    'a has 3 requests and has made no step for 35 s',
  );
  progress.stepSettled(step('a', 1));
  expect(progress.stalledReason([worker('a', 3)], 41_000)).toBe('');
});

test('idleness is not a stall, however long, nor is work that came after it', () => {
  const progress = new WorkerProgress();
  progress.stepSettled(step('a', 7));
  for (let now = 0; now < 600_000; now += 5000) {
    expect(progress.stalledReason([worker('a', 0)], now)).toBe('');
  }
  expect(progress.stalledReason([worker('a', 1)], 600_000)).toBe('');
  expect(progress.stalledReason([worker('a', 1)], 620_000)).toBe('');
  expect(progress.stalledReason([worker('a', 1)], 631_000)).not.toBe('');
});

test('calibration steps are no progress of requests', () => {
  const progress = new WorkerProgress();
  progress.stalledReason([worker('a', 1)], 0);
  progress.stepSettled(step('a', 2, 'calibration'));
  expect(progress.stalledReason([worker('a', 1)], 60_000)).not.toBe('');
});

test('while one of several workers advances, requests have a place to go', () => {
  const progress = new WorkerProgress();
  const both = [worker('a', 1), worker('b', 1)];
  progress.stalledReason(both, 0);
  progress.stepSettled(step('b', 1));
  expect(progress.stalledReason(both, 60_000)).toBe('');
  expect(progress.stalledReason(both, 120_000)).not.toBe('');
});
