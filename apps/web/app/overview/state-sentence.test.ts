/** What the overview says in one sentence. */
import { expect, test } from 'vitest';
import { stateSentence } from './state-sentence.ts';

const summary = {
  now: 1000,
  isReady: true,
  unreadyReason: '',
  modelId: 'stories-5m',
  livePathId: '0123456789ab',
  livePath: null,
  simulatedDeviceNames: [],
  emulatedDeviceNames: [],
  mostRunningCount: 0,
  regimeName: '',
  requestCount: 12,
  errorCount: 0,
  outputTokensPerSecond: 180,
  inputTokensPerSecond: 90,
  ttftP95Ms: 400,
  itlP95Ms: 40,
  costUsdPerMillionTokens: 0.1,
  sloAttainment: 1,
  runningCount: 1,
  waitingCount: 0,
  droppedRowCount: 0,
  lastStepAt: 900,
  telemetryFault: '',
};
const objectives = { ttftMs: 2000, itlMs: 100 };

test('calm is said when every objective is met', () => {
  expect(stateSentence(summary, objectives, 'last minute')).toBe(
    'stories-5m is within its objectives over the last minute.',
  );
});

test('a missed objective is named with its size', () => {
  expect(stateSentence({ ...summary, itlP95Ms: 140 }, objectives, 'last hour')).toBe(
    'ITL p95 is 1.4x its objective over the last hour.',
  );
});

test('without a measurement nothing is claimed', () => {
  const quiet = { ...summary, ttftP95Ms: null, itlP95Ms: null };
  expect(stateSentence(quiet, objectives, 'last minute')).toBe(
    'stories-5m is ready; no request ended in the last minute.',
  );
  expect(stateSentence({ ...quiet, isReady: false }, objectives, 'last minute')).toBe(
    'stories-5m does not take requests now.',
  );
  expect(stateSentence(undefined, objectives, 'last minute')).toBe('');
});
