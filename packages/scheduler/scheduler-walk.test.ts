/**
 * Property walks: thousands of random operations over small pools, with a device whose tokens depend on everything a
 * sequence has seen. What is checked after each of them is what the scheduler promises.
 */
import { describe, expect, test } from 'vitest';
import { logprobsAlone, PaperDevice, seededRandom, tokensAlone } from './paper-device.ts';
import { Scheduler, type SchedulerLimits } from './scheduler.ts';
import type { EndedSequence, SequenceSpec, ServiceTier, TokenEvent, TokenLogprobs } from './sequence.ts';
import type { StepTimeFit } from './step-time.ts';

const fit: StepTimeFit = {
  fitId: 'fit-1',
  deviceKind: 'cpu',
  modelHash: 'm',
  kernelsId: 'k',
  fittedAt: 0,
  sampleCount: 1,
  kneeTokens: 4,
  betaMs: {
    perStep: 2,
    perToken: 0.3,
    perTokenAboveKnee: 0.5,
    perDecodeSequence: 0.1,
    perPrefillSequence: 0.2,
    perDecodeContextToken: 0.01,
    perPrefillAttention: 0.002,
  },
  heldOutMape: null,
  heldOutCount: 0,
  logBand90: null,
};

interface Track {
  readonly spec: SequenceSpec;
  readonly submittedAt: number;
  readonly tokenIds: number[];
  readonly events: TokenEvent[];
  /** Where the tokens it came with were made; null for a fresh sequence. */
  readonly resumedFrom: string | null;
  firstNumericsId: string | null;
  isMixedNumerics: boolean;
  ended: EndedSequence | null;
}

/** One walk; returns everything that happened, as text, so that two walks can be compared. */
function walk(seed: number, operationCount: number): string {
  const random = seededRandom(seed);
  const below = (bound: number): number => Math.floor(random() * bound);
  const pick = <T>(choices: readonly [T, ...T[]]): T => choices[below(choices.length)] ?? choices[0];

  const blockSize = 1 + below(5);
  const maxModelLenTokens = 20 + below(60);
  // Sometimes too small for the longest sequence, never large enough for many.
  const leastBlockCount = Math.ceil(((0.8 + 1.2 * random()) * maxModelLenTokens) / blockSize);
  const randomLimits = (): SchedulerLimits => {
    const maxRunningCount = 1 + below(8);
    return { maxRunningCount, tokenBudget: maxRunningCount + below(20), draftTokenCount: pick([0, 3, 8]) };
  };
  let limits = randomLimits();
  let numericsId = 'A';
  let blockCount = leastBlockCount;
  let now = 0;
  const scheduler = new Scheduler({ blockCount, blockSize, maxModelLenTokens, limits, numericsId });
  const device = new PaperDevice(blockSize);
  const tracks = new Map<string, Track>();
  const log: string[] = [];
  let stepMs = 0;
  let largestRunningCount = 0;
  let preemptionCount = 0;
  /** By shrinking pools, since the last step. */
  let pushedOutCount = 0;
  let cachedTokenCount = 0;
  let acceptedDraftCount = 0;
  const cacheHashes = new Set<string>();

  const trackOf = (sequenceId: string): Track => {
    const track = tracks.get(sequenceId);
    if (track === undefined) throw new Error(`Nobody submitted ${sequenceId}.`);
    return track;
  };
  const noteEnded = (ended: EndedSequence): void => {
    const track = trackOf(ended.sequenceId);
    expect(track.ended).toBeNull();
    track.ended = ended;
    expect(ended.completionTokenCount).toBe(track.tokenIds.length);
    expect(ended.isMixedNumerics).toBe(track.isMixedNumerics);
    const madeBy = track.firstNumericsId ?? track.resumedFrom;
    if (!track.isMixedNumerics && madeBy === (track.resumedFrom ?? madeBy) && madeBy !== null) {
      const alone = tokensAlone(track.spec, madeBy, track.tokenIds.length);
      expect(track.tokenIds).toEqual(alone);
      expectLogprobs(track, ended, madeBy);
    }
    if (ended.reason === 'length') {
      const total = track.spec.promptTokenIds.length + track.tokenIds.length;
      expect(track.tokenIds.length === track.spec.maxTokens || total >= maxModelLenTokens).toBe(true);
    }
    log.push(`end ${ended.sequenceId} ${ended.reason} ${ended.completionTokenCount} ${now}`);
  };
  let submittedCount = 0;
  const submit = (): void => {
    submittedCount += 1;
    // Few distinct beginnings, so that prefixes are shared; some longer than the pool or the model allows.
    const family = below(3);
    const promptTokenIds = Array.from({ length: 1 + below(maxModelLenTokens) }, (_, at) =>
      at < 12 ? (family * 7 + at) % 50 : below(50),
    );
    const spec: SequenceSpec = {
      sequenceId: `s${submittedCount}`,
      promptTokenIds,
      generatedTokenIds: [],
      sampling: {
        temperature: 1,
        topP: 1,
        topK: 0,
        seed: below(4),
        ...(below(4) === 0 ? { frequencyPenalty: 0.5 } : {}),
        ...(below(4) === 0 ? { repetitionPenalty: 1.2 } : {}),
        ...(below(4) === 0 ? { minTokens: below(10) } : {}),
        ...pick([{}, {}, { logprobCount: 2 }, { logprobCount: 1, isPromptScored: true }]),
      },
      maxTokens: 1 + below(40),
      stopTokenIds: below(3) === 0 ? [below(50), below(50)] : [],
      tenant: pick(['t', 'u', 'v']),
      program: '',
      serviceTier: pick<ServiceTier>(['priority', 'default', 'flex']),
      objectives: { ttftMs: 1000, itlMs: 100 },
      ageLimits:
        below(6) === 0 ? { queueMs: pick([null, below(300)]), totalMs: pick([null, below(2000)]) } : null,
      cacheSalt: pick(['', '', 'salt']),
    };
    const resumedCount = below(4) === 0 ? below(spec.maxTokens) : 0;
    const generatedTokenIds = tokensAlone(spec, numericsId, resumedCount).filter(
      (_, at, all) => !all.slice(0, at + 1).some((token) => spec.stopTokenIds.includes(token)),
    );
    tracks.set(spec.sequenceId, {
      spec,
      submittedAt: now,
      tokenIds: [...generatedTokenIds],
      events: [],
      resumedFrom: generatedTokenIds.length > 0 ? numericsId : null,
      firstNumericsId: null,
      isMixedNumerics: false,
      ended: null,
    });
    const ended = scheduler.submit({ ...spec, generatedTokenIds }, now);
    if (ended !== null) noteEnded(ended);
  };
  const step = (inFlight: () => void): void => {
    const overdueIds = [...tracks.values()].filter(
      ({ spec, ended, submittedAt, firstNumericsId, resumedFrom }) =>
        ended === null &&
        spec.ageLimits !== null &&
        (now - submittedAt >= (spec.ageLimits.totalMs ?? Number.POSITIVE_INFINITY) ||
          (firstNumericsId === null &&
            resumedFrom === null &&
            now - submittedAt >= (spec.ageLimits.queueMs ?? Number.POSITIVE_INFINITY))),
    );
    const expired = scheduler.expire(now);
    expect(expired.map(({ sequenceId }) => sequenceId).sort()).toEqual(
      overdueIds.map(({ spec }) => spec.sequenceId).sort(),
    );
    for (const ended of expired) {
      expect(ended.reason).toBe('expired');
      noteEnded(ended);
    }
    const before = scheduler.counts();
    const batch = scheduler.schedule(now);
    if (batch === null) {
      expect(before.runningCount + before.waitingCount).toBe(0);
      return;
    }
    expect(batch.features.tokenCount).toBeLessThanOrEqual(limits.tokenBudget);
    expect(new Set(batch.entries.map((entry) => entry.sequenceId)).size).toBe(batch.entries.length);
    const during = scheduler.counts();
    expect(during.runningCount).toBeLessThanOrEqual(Math.max(limits.maxRunningCount, before.runningCount));
    largestRunningCount = Math.max(largestRunningCount, during.runningCount);
    for (const { sequenceId } of batch.entries) {
      const track = trackOf(sequenceId);
      track.firstNumericsId ??= numericsId;
      if (track.firstNumericsId !== numericsId) track.isMixedNumerics = true;
    }
    const answered = device.run(batch, numericsId);
    inFlight();
    now += 1 + below(30);
    const deviceMs = random() * 20;
    stepMs += deviceMs;
    if (below(200) === 0) {
      // The charge of an aborted step is nobody's: it never settled.
      stepMs -= deviceMs;
      for (const ended of scheduler.abort(batch.stepId, 'the device fell over', now)) noteEnded(ended);
      return;
    }
    const settlement = scheduler.settle({ stepId: batch.stepId, ...answered, deviceMs }, now);
    for (const event of settlement.events) {
      const track = trackOf(event.sequenceId);
      expect(event.index).toBe(track.tokenIds.length);
      track.tokenIds.push(event.tokenId);
      track.events.push(event);
      log.push(`token ${event.sequenceId} ${event.tokenId} ${now}`);
    }
    for (const ended of settlement.ended) noteEnded(ended);
    for (const hash of settlement.leftBlockHashes) expect(cacheHashes.delete(hash)).toBe(true);
    for (const hash of settlement.enteredBlockHashes) {
      expect(cacheHashes.has(hash)).toBe(false);
      cacheHashes.add(hash);
    }
    expect(cacheHashes.size).toBeLessThanOrEqual(blockCount);
    const charged = Object.values(settlement.charge).reduce((sum, ms) => sum + ms, 0);
    expect(Math.abs(charged - deviceMs)).toBeLessThanOrEqual(1e-9 * deviceMs);
    expect(settlement.emittedTokenCount).toBe(settlement.events.length);
    expect(settlement.itlTokenCount).toBeLessThanOrEqual(settlement.events.length);
    // Who is let in is in the batch: a step lets nobody in whom it does not compute.
    const admittedCount =
      before.waitingCount + settlement.preemptionCount - pushedOutCount - during.waitingCount;
    pushedOutCount = 0;
    expect(admittedCount).toBeGreaterThanOrEqual(0);
    expect(admittedCount).toBeLessThanOrEqual(batch.entries.length);
    preemptionCount += settlement.preemptionCount;
    cachedTokenCount += settlement.cachedTokenCount;
    expect(settlement.acceptedDraftCount).toBeLessThanOrEqual(settlement.draftedTokenCount);
    acceptedDraftCount += settlement.acceptedDraftCount;
  };
  const cancelOne = (): void => {
    const openIds = scheduler.openSequenceIds();
    const sequenceId = openIds[below(openIds.length)];
    if (sequenceId === undefined) return;
    const ended = scheduler.cancel(sequenceId, pick(['cancelled', 'stop']), now);
    if (ended !== null) noteEnded(ended);
  };

  for (let operation = 0; operation < operationCount; operation += 1) {
    const roll = below(100);
    now += below(5);
    if (roll < 22) submit();
    else if (roll < 26) cancelOne();
    else if (roll < 28) {
      limits = randomLimits();
      scheduler.setLimits(limits);
      expect(scheduler.isSettled()).toBe(scheduler.counts().runningCount <= limits.maxRunningCount);
    } else if (roll < 29) {
      numericsId = pick(['A', 'B']);
      scheduler.setNumerics(numericsId);
    } else if (roll < 30) {
      // Another format of the cache: other bits, and more or fewer blocks.
      numericsId = pick(['A', 'B']);
      scheduler.setNumerics(numericsId);
      blockCount = leastBlockCount * pick([1, 2, 3]);
      const { waitingCount } = scheduler.counts();
      device.keepOnly(scheduler.setBlockCount(blockCount));
      pushedOutCount += scheduler.counts().waitingCount - waitingCount;
    } else if (roll < 31) scheduler.setFit(pick([null, fit, { ...fit, fitId: 'fit-2' }]));
    else {
      step(() => {
        if (below(12) === 0) cancelOne();
        if (below(20) === 0) submit();
      });
    }
    expect(scheduler.audit()).toEqual([]);
  }
  for (let steps = 0; scheduler.openSequenceIds().length > 0; steps += 1) {
    if (steps > 20_000) throw new Error('The scheduler does not drain.');
    step(() => undefined);
  }

  expect(scheduler.audit()).toEqual([]);
  expect(scheduler.counts()).toEqual({ runningCount: 0, waitingCount: 0, kvUsedBlockCount: 0 });
  let accountsMs = 0;
  for (const { ended } of tracks.values()) {
    if (ended === null) throw new Error('A sequence never ended.');
    const { account } = ended;
    accountsMs +=
      account.prefillDeviceMs +
      account.decodeDeviceMs +
      account.speculationWasteDeviceMs +
      account.recomputeDeviceMs;
  }
  expect(Math.abs(accountsMs - stepMs)).toBeLessThanOrEqual(1e-9 * stepMs);
  log.push(
    `${largestRunningCount} running, ${preemptionCount} preempted, ${cachedTokenCount} cached, ${acceptedDraftCount} guessed`,
  );
  return log.join('\n');
}

/** Every generated token has its own where asked; the prompt's come once, with the first token or with the end. */
function expectLogprobs(
  { spec, tokenIds, events, resumedFrom }: Track,
  ended: EndedSequence,
  numericsId: string,
) {
  const { logprobCount, isPromptScored = false } = spec.sampling;
  const promptCount = spec.promptTokenIds.length;
  const all: readonly TokenLogprobs[] =
    logprobCount === undefined
      ? []
      : logprobsAlone([...spec.promptTokenIds, ...tokenIds], numericsId, logprobCount);
  for (const event of events) {
    expect(event.logprobs).toEqual(all[promptCount - 1 + event.index]);
    const isFirst = event.index === 0 && isPromptScored && promptCount > 1;
    expect(event.promptLogprobs).toEqual(isFirst ? all.slice(0, promptCount - 1) : undefined);
  }
  if (resumedFrom !== null || events.length > 0) expect(ended.promptLogprobs).toBeUndefined();
  else expect(ended.promptLogprobs ?? []).toEqual(all.slice(0, ended.promptLogprobs?.length ?? 0));
}

describe('a random walk', () => {
  test.each([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])(
    'keeps every promise over 1,000 operations (seed %i)',
    (seed) => {
      expect(walk(seed, 1000).length).toBeGreaterThan(0);
    },
  );

  test('takes the same way twice with the same seed', () => {
    expect(walk(77, 600)).toBe(walk(77, 600));
  });

  test('meets preemption, the prefix cache and right guesses on its way', () => {
    const summary = walk(3, 1500).split('\n').at(-1) ?? '';
    const [, preempted = 0, cached = 0, guessed = 0] = (summary.match(/\d+/g) ?? []).map(Number);
    expect(preempted).toBeGreaterThan(10);
    expect(cached).toBeGreaterThan(10);
    expect(guessed).toBeGreaterThan(10);
  });
});
