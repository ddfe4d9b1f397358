import { expect, test } from 'vitest';
import type { Batch } from './batch.ts';
import { advance, type BatchEvent, BatchLifeError, beginBatch, canCancel, hasEnded } from './batch-life.ts';

const begun = (): Batch =>
  beginBatch(
    {
      batchId: 'batch_1',
      tenant: 'default',
      keyId: '',
      endpoint: '/v1/completions',
      inputFileId: 'file-1',
      metadata: null,
      outputExpiresAfterMs: null,
    },
    { createdAt: 0, expiresAt: 1000 },
  );
const usage = { promptTokenCount: 3, cachedTokenCount: 1, completionTokenCount: 2 };
const validated: BatchEvent = { kind: 'validated', at: 1, lineCount: 2, model: 'm' };
const linesDone: BatchEvent = { kind: 'linesDone', at: 2 };
const cancelAsked: BatchEvent = { kind: 'cancelAsked', at: 3 };
const windowPassed: BatchEvent = { kind: 'windowPassed', at: 4 };
const failed: BatchEvent = { kind: 'failed', at: 5, faults: [] };
const assembled: BatchEvent = {
  kind: 'assembled',
  at: 6,
  outputFileId: 'file-2',
  errorFileId: null,
  counts: { total: 2, completed: 2, failed: 0 },
  usage,
};
const fold = (events: readonly BatchEvent[]): Batch => events.reduce(advance, begun());

test.each<[string, readonly BatchEvent[], string]>([
  ['runs through', [validated, linesDone, assembled], 'completed'],
  ['cannot be run', [failed], 'failed'],
  ['loses its input while it runs', [validated, failed], 'failed'],
  ['is cancelled while it is read', [cancelAsked, assembled], 'cancelled'],
  ['is cancelled while it runs', [validated, cancelAsked, assembled], 'cancelled'],
  ['is cancelled twice', [validated, cancelAsked, cancelAsked, assembled], 'cancelled'],
  ['is overdue before it was read', [windowPassed], 'expired'],
  ['is overdue while it runs', [validated, windowPassed, assembled], 'expired'],
  ['is overdue when all is done', [validated, linesDone, windowPassed, assembled], 'completed'],
  ['is overdue while it is cancelled', [validated, cancelAsked, windowPassed, assembled], 'cancelled'],
  ['is asked to cancel too late', [validated, linesDone, cancelAsked, assembled], 'completed'],
])('a batch that %s ends as it should', (_name, events, status) => {
  const batch = fold(events);
  expect(batch.status).toBe(status);
  expect(hasEnded(batch)).toBe(true);
});

test('each state notes when it began, and what was made', () => {
  const batch = fold([validated, linesDone, assembled]);
  expect(batch).toMatchObject({
    inProgressAt: 1,
    finalizingAt: 2,
    completedAt: 6,
    model: 'm',
    outputFileId: 'file-2',
    counts: { total: 2, completed: 2, failed: 0 },
    usage,
  });
  expect(fold([validated]).counts).toEqual({ total: 2, completed: 0, failed: 0 });
});

test('nothing changes a batch that has ended, and what cannot come is a broken invariant', () => {
  const ended = fold([validated, linesDone, assembled]);
  for (const event of [validated, linesDone, cancelAsked, windowPassed, failed, assembled]) {
    expect(advance(ended, event)).toBe(ended);
  }
  expect(() => fold([linesDone])).toThrow(BatchLifeError);
  expect(() => fold([validated, validated])).toThrow(BatchLifeError);
  expect(() => fold([validated, assembled])).toThrow(BatchLifeError);
});

test('only a batch that is read or runs can be cancelled', () => {
  const states = [[], [validated], [validated, cancelAsked], [validated, linesDone], [failed]] as const;
  expect(states.map((events) => canCancel(fold(events)))).toEqual([true, true, true, false, false]);
});
