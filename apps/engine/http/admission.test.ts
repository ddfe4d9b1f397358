import { describe, expect, test } from 'vitest';
import type { RequestError } from '../generation/request-error.ts';
import { Admission, type AdmissionLimits } from './admission.ts';
import { QueueDrain } from './queue-drain.ts';

const limits: AdmissionLimits = {
  maxSequenceCount: 100,
  maxQueuedRequestCount: 10,
  maxQueuedTokenCount: 1000,
  tenantQueueShare: 1,
  maxQueueWaitMs: null,
};

function setUp(change: Partial<AdmissionLimits> = {}) {
  let now = 0;
  const admission = new Admission({ ...limits, ...change }, () => now);
  const refusalOf = (act: () => unknown): RequestError | null => {
    try {
      act();
      return null;
    } catch (error) {
      return error as RequestError;
    }
  };
  return {
    admission,
    refusalOf,
    pass: (ms: number) => {
      now += ms;
    },
    enter: (count = 1, tenant = 'a') => admission.enter(count, tenant),
  };
}

describe('the door', () => {
  test('counts who waits for a first token; who runs takes no place in the queue', () => {
    const { admission, enter, refusalOf } = setUp({ maxQueuedRequestCount: 3 });
    const permits = [enter(), enter(), enter()];
    expect(refusalOf(() => enter())?.status).toBe(429);
    permits[0]?.takePrompts([5], 'default');
    permits[0]?.begun(0);
    expect(admission.load()).toMatchObject({ sequenceCount: 2, promptTokenCount: 0 });
    expect(refusalOf(() => enter())).toBeNull();
    expect(admission.permitCount).toBe(4);
  });

  test('takes what is larger than the queue while nothing waits, and nothing beside it', () => {
    const { enter, refusalOf } = setUp({ maxQueuedTokenCount: 10 });
    const large = enter();
    large.takePrompts([500], 'default');
    const small = enter();
    expect(refusalOf(() => small.takePrompts([1], 'default'))?.status).toBe(429);
    large.begun(0);
    expect(refusalOf(() => small.takePrompts([1], 'default'))).toBeNull();
  });

  test('bounds a tenant by its share, in requests and in tokens', () => {
    const { enter, refusalOf } = setUp({ tenantQueueShare: 0.5 });
    const permits = Array.from({ length: 5 }, () => enter(1, 'greedy'));
    expect(refusalOf(() => enter(1, 'greedy'))?.message).toMatch(/5 requests of yours wait already/);
    permits[0]?.takePrompts([400], 'default');
    expect(refusalOf(() => permits[1]?.takePrompts([200], 'default'))?.message).toMatch(
      /400 prompt tokens of yours/,
    );
    const other = enter(1, 'modest');
    expect(refusalOf(() => other.takePrompts([200], 'default'))).toBeNull();
  });

  test('forgets everything about a permit that is released, once', () => {
    const { admission, enter } = setUp();
    const permit = enter(3);
    permit.takePrompts([1, 2, 3], 'default');
    permit.begun(1);
    permit.release();
    permit.release();
    permit.begun(0);
    expect(admission.load()).toMatchObject({ sequenceCount: 0, promptTokenCount: 0 });
    expect(admission.permitCount).toBe(0);
  });

  test('says when to come again by how fast the queue empties', () => {
    const { enter, refusalOf, pass } = setUp({ maxQueuedRequestCount: 10 });
    expect(refusalOf(() => enter(10))).toBeNull();
    expect(refusalOf(() => enter())?.retryAfterMs).toBe(1000);
    const again = setUp({ maxQueuedRequestCount: 10 });
    const permits = Array.from({ length: 10 }, () => again.enter());
    // Two leave every second; then two more come, and a third has to wait for one to go.
    for (const index of [0, 1, 2, 3]) {
      again.pass(500);
      permits[index]?.takePrompts([10], 'default');
      permits[index]?.begun(0);
    }
    for (let count = 0; count < 4; count += 1) again.enter();
    const one = again.refusalOf(() => again.enter(1));
    const four = again.refusalOf(() => again.enter(4));
    expect(one?.retryAfterMs).toBeGreaterThan(400);
    expect(one?.retryAfterMs).toBeLessThan(650);
    expect(four?.retryAfterMs).toBeGreaterThan(4 * 400);
    expect(four?.message).toMatch(/try again in 2 s|try again in 3 s/);
    pass(0);
  });

  test('refuses at once who would wait longer than is allowed, but not flex, and nobody on a guess', () => {
    const { enter, refusalOf, pass } = setUp({ maxQueueWaitMs: 2000, maxQueuedTokenCount: 100_000 });
    const first = enter();
    first.takePrompts([100], 'default');
    expect(refusalOf(() => enter().takePrompts([50_000], 'default'))).toBeNull();
    pass(1000);
    first.begun(0);
    // A hundred tokens a second, and fifty thousand wait.
    const refused = refusalOf(() => enter().takePrompts([10], 'default'));
    expect(refused?.status).toBe(429);
    expect(refused?.retryAfterMs).toBe(60_000);
    expect(refusalOf(() => enter().takePrompts([10], 'flex'))).toBeNull();
  });
});

describe('the drain of the queue', () => {
  test('is measured only while something waits', () => {
    const drain = new QueueDrain();
    drain.waits(true, 0);
    for (let at = 100; at <= 5000; at += 100) drain.departed(20, at);
    drain.waits(false, 5000);
    const before = drain.predictMs(10, 0, 5000);
    expect(before).toBeGreaterThan(900);
    expect(before).toBeLessThan(1100);
    expect(drain.predictMs(10, 0, 9_000_000)).toBe(before);
    expect(drain.predictMs(1, 2000, 9_000_000)).toBeGreaterThan(9000);
  });

  test('forgets how fast it was', () => {
    const drain = new QueueDrain();
    drain.waits(true, 0);
    for (let at = 10; at <= 5000; at += 10) drain.departed(20, at);
    for (let at = 6000; at <= 105_000; at += 1000) drain.departed(20, at);
    const slow = drain.predictMs(1, 0, 105_000) ?? 0;
    expect(slow).toBeGreaterThan(800);
    expect(slow).toBeLessThan(1100);
  });
});
