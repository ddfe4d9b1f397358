/** Tables of cases: one promise of the scheduler each. The random walks are in scheduler-walk.test.ts. */
import { describe, expect, test } from 'vitest';
import type { Batch, StepSettlement } from './batch.ts';
import { logprobsAlone, PaperDevice, tokensAlone } from './paper-device.ts';
import { Scheduler, SchedulerError, type SchedulerOptions } from './scheduler.ts';
import type { EndedSequence, Sampling, SequenceSpec } from './sequence.ts';
import type { StepTimeFit } from './step-time.ts';

const defaults: SchedulerOptions = {
  blockCount: 64,
  blockSize: 4,
  maxModelLenTokens: 100,
  limits: { tokenBudget: 16, maxRunningCount: 4 },
  numericsId: 'A',
};

function spec(sequenceId: string, change: Partial<SequenceSpec> = {}): SequenceSpec {
  return {
    sequenceId,
    promptTokenIds: Array.from({ length: 10 }, (_, at) => at),
    generatedTokenIds: [],
    sampling: { temperature: 0, topP: 1, topK: 0, seed: 1 },
    maxTokens: 6,
    stopTokenIds: [],
    tenant: '',
    program: '',
    serviceTier: 'default',
    objectives: { ttftMs: 1000, itlMs: 100 },
    ageLimits: null,
    cacheSalt: '',
    ...change,
  };
}

const countingUp = (length: number, from = 0): number[] => Array.from({ length }, (_, at) => from + at);

/** A scheduler with its paper device; every step takes 10 ms. */
function setUp(change: Partial<SchedulerOptions> = {}) {
  const options = { ...defaults, ...change };
  const scheduler = new Scheduler(options);
  const device = new PaperDevice(options.blockSize);
  const tokens = new Map<string, number[]>();
  const ended = new Map<string, EndedSequence>();
  let now = 0;
  const note = (one: EndedSequence | null): void => {
    if (one !== null) ended.set(one.sequenceId, one);
  };
  const settle = (batch: Batch, numericsId: string): StepSettlement => {
    const answered = device.run(batch, numericsId);
    now += 10;
    const settlement = scheduler.settle({ stepId: batch.stepId, ...answered, deviceMs: 10 }, now);
    for (const event of settlement.events) {
      tokens.set(event.sequenceId, [...(tokens.get(event.sequenceId) ?? []), event.tokenId]);
    }
    for (const one of settlement.ended) note(one);
    return settlement;
  };
  const step = (numericsId = options.numericsId): { batch: Batch; settlement: StepSettlement } => {
    const batch = scheduler.schedule(now);
    if (batch === null) throw new Error('There was nothing to schedule.');
    return { batch, settlement: settle(batch, numericsId) };
  };
  const drain = (): Batch[] => {
    const batches: Batch[] = [];
    while (scheduler.openSequenceIds().length > 0) batches.push(step().batch);
    return batches;
  };
  return {
    scheduler,
    tokens,
    ended,
    settle,
    step,
    drain,
    submit: (one: SequenceSpec, at = now) => note(scheduler.submit(one, at)),
  };
}

describe('tokens', () => {
  const prompts = [spec('a'), spec('b', { promptTokenIds: countingUp(23, 3) }), spec('c', { maxTokens: 12 })];
  const ways: [string, Partial<SchedulerOptions>][] = [
    ['batched', {}],
    ['in chunks of 1', { limits: { tokenBudget: 1, maxRunningCount: 1 } }],
    ['in chunks of 7', { limits: { tokenBudget: 7, maxRunningCount: 3 } }],
    ['in whole prompts', { limits: { tokenBudget: 64, maxRunningCount: 3 } }],
    ['in a pool that preempts', { blockCount: 9 }],
    ['with blocks of one token', { blockSize: 1 }],
  ];
  test.each(ways)('are the same %s as alone', (_, change) => {
    const run = setUp(change);
    for (const prompt of prompts) run.submit(prompt);
    run.drain();
    for (const prompt of prompts) {
      expect(run.tokens.get(prompt.sequenceId)).toEqual(tokensAlone(prompt, 'A', prompt.maxTokens));
    }
  });

  test('are the same with a warm prefix cache, of which the last prompt token is never taken', () => {
    const run = setUp();
    const prompt = spec('cold', { promptTokenIds: countingUp(12) });
    run.submit(prompt);
    run.drain();
    run.submit({ ...prompt, sequenceId: 'warm' });
    const { batch, settlement } = run.step();
    expect(batch.entries[0]?.contextLength).toBe(8);
    expect(settlement.cachedTokenCount).toBe(8);
    run.drain();
    expect(run.tokens.get('warm')).toEqual(run.tokens.get('cold'));
    expect(run.ended.get('warm')?.cachedTokenCount).toBe(8);
  });

  test('go on where a lost worker left, with indexes that continue', () => {
    const run = setUp();
    const prompt = spec('a', { maxTokens: 6 });
    const alone = tokensAlone(prompt, 'A', 6);
    run.submit({ ...prompt, generatedTokenIds: alone.slice(0, 2) });
    const { settlement } = run.step();
    expect(settlement.events).toEqual([{ sequenceId: 'a', tokenId: alone[2], index: 2 }]);
    expect(settlement.firstTokenCount).toBe(0);
    run.drain();
    expect(run.tokens.get('a')).toEqual(alone.slice(2));
    expect(run.ended.get('a')?.completionTokenCount).toBe(6);
  });
});

describe('sampling that looks at the sequence itself', () => {
  const asking = (sequenceId: string, sampling: Partial<Sampling>, change: Partial<SequenceSpec> = {}) =>
    spec(sequenceId, { ...change, sampling: { ...spec('').sampling, ...sampling } });

  test('a sequence without penalties, bans and log-probabilities carries nothing for them', () => {
    const run = setUp();
    run.submit(spec('plain', { stopTokenIds: [1] }));
    expect(Object.keys(run.step().batch.entries[0] ?? {}).sort()).toEqual(
      ['blockTable', 'contextLength', 'isSampled', 'kind', 'sampling', 'sequenceId', 'tokenIds'].sort(),
    );
  });

  test('penalties count on where a lost worker left: same tokens resumed after any of them', () => {
    const asked = asking('a', { repetitionPenalty: 1.3, frequencyPenalty: 0.5 }, { maxTokens: 12 });
    const alone = tokensAlone(asked, 'A', 12);
    expect(alone).not.toEqual(tokensAlone(spec('a'), 'A', 12));
    for (let resumedAt = 0; resumedAt < 12; resumedAt += 1) {
      const run = setUp();
      run.submit({ ...asked, generatedTokenIds: alone.slice(0, resumedAt) });
      run.drain();
      expect(run.tokens.get('a')).toEqual(alone.slice(resumedAt));
    }
  });

  test('a stop token does not come before min_tokens, counted from the first token wherever it was made', () => {
    const plain = tokensAlone(spec('a'), 'A', 6);
    const stopTokenIds = [plain[1] ?? -1];
    const asked = asking('a', { minTokens: 4 }, { maxTokens: 6, stopTokenIds });
    const alone = tokensAlone(asked, 'A', 6);
    expect(alone.slice(0, 4)).not.toContain(plain[1]);
    for (const resumedAt of [0, 3]) {
      const run = setUp();
      run.submit({ ...asked, generatedTokenIds: alone.slice(0, resumedAt) });
      const batches = run.drain();
      const banned = batches.flatMap(({ entries }) => entries.map((entry) => entry.bannedTokenIds));
      expect(banned.filter((ids) => ids !== undefined)).toHaveLength(4 - resumedAt);
      expect(run.tokens.get('a')).toEqual(alone.slice(resumedAt));
    }
  });

  test("a prompt's log-probabilities are computed beside a warm cache, and come with the first token or the end", () => {
    const run = setUp({ limits: { tokenBudget: 5, maxRunningCount: 4 } });
    const prompt = countingUp(12);
    run.submit(spec('warming', { promptTokenIds: prompt }));
    run.drain();
    const asked = asking('a', { logprobCount: 3, isPromptScored: true }, { promptTokenIds: prompt });
    run.submit(asked);
    const events = [];
    while (run.scheduler.openSequenceIds().length > 0) events.push(...run.step().settlement.events);
    const all = logprobsAlone([...prompt, ...(run.tokens.get('a') ?? [])], 'A', 3);
    expect(run.ended.get('a')?.cachedTokenCount).toBe(0);
    expect(events[0]?.promptLogprobs).toEqual(all.slice(0, 11));
    expect(events.map((event) => event.logprobs)).toEqual(all.slice(11));
    expect(events.slice(1).every((event) => event.promptLogprobs === undefined)).toBe(true);
    const stopped = { ...asked, sequenceId: 'b', stopTokenIds: [run.tokens.get('a')?.[0] ?? -1] };
    run.submit(stopped);
    run.drain();
    expect(run.ended.get('b')).toMatchObject({ reason: 'stop', promptLogprobs: all.slice(0, 11) });
  });
});

describe('ends', () => {
  test('with stop at a stop token, which is not emitted', () => {
    const run = setUp();
    const alone = tokensAlone(spec('a'), 'A', 6);
    run.submit(spec('a', { stopTokenIds: [alone[3] ?? -1] }));
    run.drain();
    expect(run.tokens.get('a')).toEqual(alone.slice(0, 3));
    expect(run.ended.get('a')).toMatchObject({ reason: 'stop', completionTokenCount: 3, message: '' });
  });

  test('with length where the model has no more positions', () => {
    const run = setUp({ maxModelLenTokens: 12 });
    run.submit(spec('a', { maxTokens: 50 }));
    run.drain();
    expect(run.ended.get('a')).toMatchObject({ reason: 'length', completionTokenCount: 2 });
  });

  const refusals: [string, Partial<SequenceSpec>, RegExp][] = [
    ['a prompt beyond the model', { promptTokenIds: countingUp(100) }, /has 100 tokens.*at most 100 fit/],
    ['a prompt beyond the pool', { promptTokenIds: countingUp(50) }, /50 tokens.*holds 48/],
    ['an empty prompt', { promptTokenIds: [] }, /no tokens/],
    ['a wish for no token', { maxTokens: 0 }, /maxTokens must be 1 or more/],
  ];
  test.each(refusals)('at once with an error for %s', (_, change, message) => {
    const run = setUp({ blockCount: 12 });
    run.submit(spec('a', change));
    expect(run.ended.get('a')).toMatchObject({ reason: 'error', message: expect.stringMatching(message) });
    expect(run.scheduler.openSequenceIds()).toEqual([]);
  });

  test('with an error when a sequence outgrows the whole pool, after every token that fits', () => {
    const run = setUp({ blockCount: 3, maxModelLenTokens: 50 });
    run.submit(spec('a', { maxTokens: 30 }));
    run.drain();
    expect(run.ended.get('a')).toMatchObject({ reason: 'error', completionTokenCount: 3 });
    expect(run.scheduler.audit()).toEqual([]);
  });

  test('with an error for all in the step when the device fails, and nobody else', () => {
    const run = setUp({ limits: { tokenBudget: 16, maxRunningCount: 1 } });
    run.submit(spec('a'));
    run.submit(spec('b'));
    const batch = run.scheduler.schedule(0);
    const ended = run.scheduler.abort(batch?.stepId ?? -1, 'out of luck', 5);
    expect(ended.map(({ sequenceId, reason, message }) => [sequenceId, reason, message])).toEqual([
      ['a', 'error', 'out of luck'],
    ]);
    run.drain();
    expect(run.ended.get('b')?.reason).toBe('length');
  });
});

describe('cancellation', () => {
  test('is immediate for a sequence that waits or is between steps', () => {
    const run = setUp({ limits: { tokenBudget: 16, maxRunningCount: 1 } });
    run.submit(spec('running'));
    run.submit(spec('waiting'));
    run.step();
    expect(run.scheduler.cancel('waiting', 'cancelled', 10)?.reason).toBe('cancelled');
    expect(run.scheduler.cancel('running', 'stop', 10)).toMatchObject({
      reason: 'stop',
      completionTokenCount: 1,
    });
    expect(run.scheduler.cancel('running', 'stop', 10)).toBeNull();
    expect(run.scheduler.counts()).toEqual({ runningCount: 0, waitingCount: 0, kvUsedBlockCount: 0 });
  });

  test('waits for the step in flight, whose token is discarded and charged as waste', () => {
    const run = setUp();
    run.submit(spec('a'));
    run.step();
    const batch = run.scheduler.schedule(10);
    if (batch === null) throw new Error('There was nothing to schedule.');
    expect(run.scheduler.cancel('a', 'stop', 15)).toBeNull();
    const settlement = run.settle(batch, 'A');
    expect(settlement.events).toEqual([]);
    expect(settlement.charge).toEqual({
      prefillDeviceMs: 0,
      decodeDeviceMs: 0,
      speculationWasteDeviceMs: 10,
      recomputeDeviceMs: 0,
    });
    expect(settlement.ended).toMatchObject([
      { sequenceId: 'a', reason: 'stop', account: { prefillDeviceMs: 10, speculationWasteDeviceMs: 10 } },
    ]);
  });
});

describe('a step', () => {
  test('decodes first, then continues prefills, then admits, within the token budget', () => {
    const run = setUp({ limits: { tokenBudget: 8, maxRunningCount: 3 } });
    run.submit(spec('a', { promptTokenIds: [1, 2] }));
    run.submit(spec('b', { promptTokenIds: countingUp(20, 1) }));
    run.submit(spec('c', { promptTokenIds: countingUp(5, 40) }));
    const shapes = [run.step(), run.step(), run.step(), run.step()].map(({ batch }) =>
      batch.entries.map((entry) => [
        entry.sequenceId,
        entry.kind,
        entry.contextLength,
        entry.tokenIds.length,
      ]),
    );
    expect(shapes).toEqual([
      [
        ['a', 'prefill', 0, 2],
        ['b', 'prefill', 0, 6],
      ],
      [
        ['a', 'decode', 2, 1],
        ['b', 'prefill', 6, 7],
      ],
      [
        ['a', 'decode', 3, 1],
        ['b', 'prefill', 13, 7],
      ],
      [
        ['a', 'decode', 4, 1],
        ['b', 'decode', 20, 1],
        ['c', 'prefill', 0, 5],
      ],
    ]);
  });

  test('states the gaps between tokens and who got a first one', () => {
    const run = setUp();
    run.submit(spec('a'));
    expect(run.step().settlement).toMatchObject({
      emittedTokenCount: 1,
      firstTokenCount: 1,
      itlTokenCount: 0,
    });
    expect(run.step().settlement).toMatchObject({
      emittedTokenCount: 1,
      firstTokenCount: 0,
      itlTokenCount: 1,
      itlMeanMs: 10,
      itlMaxMs: 10,
    });
  });

  test('must settle before the next is composed, and only once', () => {
    const run = setUp();
    run.submit(spec('a'));
    const batch = run.scheduler.schedule(0);
    expect(() => run.scheduler.schedule(1)).toThrow(SchedulerError);
    const result = { stepId: batch?.stepId ?? -1, sampledTokenIds: [3], deviceMs: 1 };
    expect(() => run.scheduler.settle({ ...result, deviceMs: Number.NaN }, 1)).toThrow('NaN ms');
    run.scheduler.settle(result, 1);
    expect(() => run.scheduler.settle(result, 2)).toThrow('not in flight');
  });

  test('is refused for an id that is open', () => {
    const run = setUp();
    run.submit(spec('a'));
    expect(() => run.submit(spec('a'))).toThrow('open already');
  });
});

describe('preemption', () => {
  test('pushes back the lowest tier, keeps its tokens and account, and charges the way back as recompute', () => {
    const run = setUp({ blockCount: 7, limits: { tokenBudget: 32, maxRunningCount: 2 } });
    const flex = spec('flex', { promptTokenIds: countingUp(9), serviceTier: 'flex', maxTokens: 12 });
    const quick = spec('quick', { promptTokenIds: countingUp(9, 20), maxTokens: 12 });
    // The flex sequence comes before the other and is admitted with it, and still is the one that goes.
    run.submit(flex, -20_000);
    run.submit(quick);
    const kinds = run
      .drain()
      .flatMap((batch) => batch.entries.map((entry) => `${entry.sequenceId} ${entry.kind}`));
    expect(kinds).toContain('flex recompute');
    expect(kinds).not.toContain('quick recompute');
    for (const one of [flex, quick]) {
      expect(run.tokens.get(one.sequenceId)).toEqual(tokensAlone(one, 'A', 12));
    }
    const ended = run.ended.get('flex');
    expect(ended?.preemptionCount).toBeGreaterThan(0);
    expect(ended?.account.recomputeDeviceMs).toBeGreaterThan(0);
    expect(ended?.account.decodeDeviceMs).toBeGreaterThan(0);
  });

  test('by a pool that shrinks is told by the next step that settles', () => {
    const run = setUp({ blockCount: 16, limits: { tokenBudget: 64, maxRunningCount: 2 } });
    run.submit(spec('a', { promptTokenIds: countingUp(9), maxTokens: 6 }));
    run.submit(spec('b', { promptTokenIds: countingUp(9, 20), maxTokens: 6 }));
    run.step();
    run.scheduler.setBlockCount(5);
    expect(run.scheduler.counts()).toMatchObject({ runningCount: 1, waitingCount: 1 });
    const batch = run.scheduler.schedule(0);
    run.scheduler.abort(batch?.stepId ?? 0, 'the device fell over', 0);
    run.submit(spec('c', { maxTokens: 2 }));
    expect(run.step().settlement.preemptionCount).toBe(1);
    run.drain();
  });

  test('spares the eldest, whatever its tier: what has waited that long gets to its end', () => {
    const run = setUp({ blockCount: 7, limits: { tokenBudget: 32, maxRunningCount: 2 } });
    run.submit(spec('flex', { promptTokenIds: countingUp(9), serviceTier: 'flex', maxTokens: 12 }), -100_000);
    run.submit(spec('quick', { promptTokenIds: countingUp(9, 20), maxTokens: 12, serviceTier: 'priority' }));
    run.drain();
    expect(run.ended.get('flex')?.preemptionCount).toBe(0);
    expect(run.ended.get('quick')?.preemptionCount).toBeGreaterThan(0);
  });

  test('never takes the blocks of a sequence that the same step already computes', () => {
    const run = setUp({ blockCount: 8, limits: { tokenBudget: 64, maxRunningCount: 3 } });
    const prompts = [8, 7, 8].map((length, index) =>
      spec(`s${index}`, { promptTokenIds: countingUp(length, 10 * index) }),
    );
    for (const prompt of prompts) run.submit(prompt);
    run.step();
    // They take turns now; s0 has its turn first, and s1 needs a block that only s2 could give, or s0 no more.
    run.scheduler.setLimits({ tokenBudget: 2, maxRunningCount: 2 });
    const computed: string[] = [];
    while (run.scheduler.openSequenceIds().length > 0) {
      const { batch, settlement } = run.step();
      if (settlement.preemptionCount > 0) computed.push(...batch.entries.map(({ sequenceId }) => sequenceId));
    }
    expect(computed.length).toBeGreaterThan(0);
    expect(run.ended.get('s0')?.preemptionCount).toBe(0);
    for (const prompt of prompts) {
      expect(run.tokens.get(prompt.sequenceId)).toEqual(tokensAlone(prompt, 'A', 6));
    }
  });
});

describe('flex', () => {
  const flex = (id: string, change: Partial<SequenceSpec> = {}): SequenceSpec =>
    spec(id, { serviceTier: 'flex', maxTokens: 40, ...change });

  test('gives its place to a default sequence that finds none, the last that came first, and no more than needed', () => {
    const run = setUp({ limits: { tokenBudget: 64, maxRunningCount: 2 } });
    run.submit(flex('f1'));
    run.submit(flex('f2'));
    run.step();
    run.submit(spec('quick'));
    const { batch, settlement } = run.step();
    expect(settlement.preemptionCount).toBe(1);
    expect(batch.entries.map(({ sequenceId }) => sequenceId)).toEqual(['f1', 'quick']);
    run.drain();
    expect(run.ended.get('f1')?.preemptionCount).toBe(0);
    expect(run.tokens.get('f2')).toEqual(tokensAlone(flex('f2'), 'A', 40));
  });

  test('gives its blocks, too, but not where all of them would not be enough', () => {
    const run = setUp({ blockCount: 16, limits: { tokenBudget: 64, maxRunningCount: 4 } });
    run.submit(spec('stays', { promptTokenIds: countingUp(24), maxTokens: 8 }));
    run.submit(flex('f', { promptTokenIds: countingUp(20, 30), maxTokens: 8 }));
    run.step();
    run.submit(spec('too-much', { promptTokenIds: countingUp(40, 60), maxTokens: 1 }));
    expect(run.step().settlement.preemptionCount).toBe(0);
    run.drain();
    expect(run.ended.get('f')?.preemptionCount).toBe(0);

    run.submit(flex('g', { promptTokenIds: countingUp(20, 30), maxTokens: 8 }));
    run.submit(flex('h', { promptTokenIds: countingUp(24, 60), maxTokens: 8 }));
    run.step();
    run.submit(spec('fits', { promptTokenIds: countingUp(28, 5), maxTokens: 2 }));
    expect(run.step().settlement.preemptionCount).toBe(1);
    run.drain();
    expect(run.ended.get('h')?.preemptionCount).toBe(1);
    expect(run.ended.get('g')?.preemptionCount).toBe(0);
  });

  test('keeps its place once its age has made up for its tier', () => {
    const run = setUp({ limits: { tokenBudget: 64, maxRunningCount: 1 } });
    run.submit(flex('f', { maxTokens: 6 }), -60_000);
    run.step();
    run.submit(spec('quick'));
    run.drain();
    expect([...run.ended.keys()]).toEqual(['f', 'quick']);
  });

  test('leaves an eighth of the places free while others run, and takes all when they do not', () => {
    const run = setUp({ blockCount: 200, limits: { tokenBudget: 200, maxRunningCount: 8 } });
    run.submit(spec('quick', { maxTokens: 3 }));
    for (let count = 0; count < 10; count += 1) run.submit(flex(`f${count}`));
    run.step();
    expect(run.scheduler.counts()).toMatchObject({ runningCount: 7, waitingCount: 4 });
    run.step();
    run.step();
    run.step();
    expect(run.scheduler.counts()).toMatchObject({ runningCount: 8, waitingCount: 2 });
  });

  test('takes as many prompt tokens as the ITL of those who read along leaves, and its fill when nobody does', () => {
    const betaMs = {
      ...{ perStep: 10, perToken: 1, perTokenAboveKnee: 0, perDecodeSequence: 0, perPrefillSequence: 0 },
      ...{ perDecodeContextToken: 0, perPrefillAttention: 0 },
    };
    const fit: StepTimeFit = {
      ...{
        fitId: 'f',
        deviceKind: 'cpu',
        modelHash: 'm',
        kernelsId: 'k',
        fittedAt: 0,
        sampleCount: 1,
        kneeTokens: 1,
      },
      ...{ betaMs, heldOutMape: null, heldOutCount: 0, logBand90: null },
    };
    const run = setUp({
      blockCount: 200,
      maxModelLenTokens: 400,
      limits: { tokenBudget: 100, maxRunningCount: 4 },
    });
    run.scheduler.setFit(fit);
    run.submit(spec('read', { maxTokens: 6, objectives: { ttftMs: 1000, itlMs: 50 } }));
    run.step();
    run.submit(flex('f', { promptTokenIds: countingUp(300, 30) }));
    const chunks = () => run.step().batch.entries.map(({ tokenIds }) => tokenIds.length);
    for (let steps = 0; steps < 5; steps += 1) {
      const [decoded, chunk = 0] = chunks();
      expect(decoded).toBe(1);
      // 10 ms a step and 1 ms a token: 34 beside the one that is read fit into 45 ms.
      expect(chunk).toBeLessThanOrEqual(34);
      expect(chunk).toBeGreaterThanOrEqual(16);
    }
    expect(chunks()).toEqual([100]);
  });

  test('learns without a fit how much of a prompt a step may take', () => {
    const run = setUp({
      blockCount: 1200,
      maxModelLenTokens: 4000,
      limits: { tokenBudget: 200, maxRunningCount: 4 },
    });
    // Every step takes 10 ms: far within the one objective, and beyond the other.
    const chunksBeside = (id: string, itlMs: number): number[] => {
      run.submit(spec(id, { maxTokens: 10, objectives: { ttftMs: 1000, itlMs } }));
      const chunks: number[] = [];
      while (!run.ended.has(id)) {
        const { entries } = run.step().batch;
        if (entries.some((entry) => entry.sequenceId === id && entry.kind === 'decode')) {
          chunks.push(entries.find(({ sequenceId }) => sequenceId === 'f')?.tokenIds.length ?? 0);
        }
      }
      return chunks;
    };
    run.submit(flex('f', { promptTokenIds: countingUp(3500, 30) }));
    const wide = chunksBeside('wide', 50);
    expect(wide[0]).toBe(64);
    expect(wide.at(-1)).toBeGreaterThan(100);
    expect(chunksBeside('tight', 11).at(-1)).toBe(16);
    run.drain();
    expect(run.ended.get('f')?.reason).toBe('length');
  });

  test('does not keep a long prompt of its own before one of a higher tier', () => {
    const run = setUp({ limits: { tokenBudget: 10, maxRunningCount: 4 } });
    run.submit(flex('long', { promptTokenIds: countingUp(60, 30) }));
    run.step();
    run.submit(spec('quick'));
    expect(run.step().batch.entries.map(({ sequenceId }) => sequenceId)).toEqual(['quick']);
  });
});

describe('age limits', () => {
  test('end a sequence between two steps: in the queue, and while it runs', () => {
    const run = setUp({ limits: { tokenBudget: 16, maxRunningCount: 1 } });
    run.submit(spec('runs', { maxTokens: 50, ageLimits: { queueMs: 5, totalMs: 45 } }), 0);
    run.submit(spec('waits', { ageLimits: { queueMs: 15, totalMs: null } }), 0);
    run.submit(spec('patient', { ageLimits: { queueMs: 1000, totalMs: null } }), 0);
    run.step();
    expect(run.scheduler.expire(10)).toEqual([]);
    expect(run.scheduler.expire(15)).toMatchObject([{ sequenceId: 'waits', reason: 'expired', queueMs: 15 }]);
    for (let steps = 0; steps < 3; steps += 1) run.step();
    expect(run.scheduler.expire(44)).toEqual([]);
    expect(run.scheduler.expire(45)).toMatchObject([
      { sequenceId: 'runs', reason: 'expired', completionTokenCount: 4 },
    ]);
    expect(run.scheduler.audit()).toEqual([]);
    expect(run.scheduler.counts()).toEqual({ runningCount: 0, waitingCount: 1, kvUsedBlockCount: 0 });
  });

  test('are not looked at while a step is in flight', () => {
    const run = setUp();
    run.submit(spec('a'));
    run.scheduler.schedule(0);
    expect(() => run.scheduler.expire(0)).toThrow(SchedulerError);
  });
});

describe('limits', () => {
  test('lowered, drop nobody: all go on decoding, nobody comes in until fewer run', () => {
    const run = setUp({ limits: { tokenBudget: 64, maxRunningCount: 4 } });
    for (const id of ['a', 'b', 'c', 'd', 'e']) run.submit(spec(id, { maxTokens: id === 'a' ? 3 : 6 }));
    run.step();
    run.scheduler.setLimits({ tokenBudget: 2, maxRunningCount: 2 });
    expect(run.scheduler.isSettled()).toBe(false);
    const turns = new Map<string, number>();
    for (let count = 0; count < 4; count += 1) {
      const { batch } = run.step();
      expect(batch.entries).toHaveLength(2);
      for (const { sequenceId } of batch.entries) turns.set(sequenceId, (turns.get(sequenceId) ?? 0) + 1);
    }
    expect(Object.fromEntries(turns)).toEqual({ a: 2, b: 2, c: 2, d: 2 });
    expect(run.scheduler.counts()).toMatchObject({ runningCount: 3, waitingCount: 1 });
    run.drain();
    expect(run.ended.size).toBe(5);
    expect(run.scheduler.isSettled()).toBe(true);
  });

  test('out of range are refused by name', () => {
    const run = setUp();
    expect(() => run.scheduler.setLimits({ tokenBudget: 0, maxRunningCount: 1 })).toThrow(/tokenBudget must/);
  });
});

describe('waiting', () => {
  test('goes by tier, and within a tier by arrival', () => {
    const run = setUp({ limits: { tokenBudget: 16, maxRunningCount: 1 } });
    run.submit(spec('flex', { serviceTier: 'flex' }));
    run.submit(spec('first'));
    run.submit(spec('second'));
    run.submit(spec('priority', { serviceTier: 'priority' }));
    run.drain();
    expect([...run.ended.keys()]).toEqual(['priority', 'first', 'second', 'flex']);
  });

  test('starves nobody: a default sequence comes in though priority ones never stop coming', () => {
    const run = setUp({ limits: { tokenBudget: 16, maxRunningCount: 1 } });
    run.submit(spec('patient'));
    // Each takes 6 steps of 10 ms, and two arrive in that time.
    for (let count = 0; count < 400 && !run.ended.has('patient'); count += 1) {
      run.submit(spec(`p${count}a`, { serviceTier: 'priority' }), count * 60);
      run.submit(spec(`p${count}b`, { serviceTier: 'priority' }), count * 60);
      for (let steps = 0; steps < 6; steps += 1) run.step();
    }
    expect(run.ended.get('patient')?.queueMs).toBeGreaterThan(10_000);
    expect(run.ended.get('patient')?.queueMs).toBeLessThan(25_000);
  });
});

describe('numerics', () => {
  test('of another path share no blocks, and mark only the sequences that both computed', () => {
    const run = setUp({ limits: { tokenBudget: 64, maxRunningCount: 4 } });
    const prompt = spec('mixed', { promptTokenIds: countingUp(12) });
    run.submit(prompt);
    run.submit({ ...prompt, sequenceId: 'before', maxTokens: 1 });
    run.step();
    run.scheduler.setNumerics('B');
    run.submit({ ...prompt, sequenceId: 'after' });
    const steps = [run.step('B')];
    while (run.scheduler.openSequenceIds().length > 0) steps.push(run.step('B'));
    expect(steps[0]?.settlement.cachedTokenCount).toBe(0);
    expect(run.tokens.get('after')).toEqual(tokensAlone(prompt, 'B', 6));
    const marks = ['before', 'mixed', 'after'].map((id) => run.ended.get(id)?.isMixedNumerics);
    expect(marks).toEqual([false, true, false]);
    // Blocks of the first path are found again once it is back; what the mixed sequence filled under both is not.
    run.scheduler.setNumerics('A');
    const conversation = [...prompt.promptTokenIds, ...(run.tokens.get('mixed') ?? [])];
    run.submit({ ...prompt, sequenceId: 'again', promptTokenIds: conversation });
    expect(run.step('A').settlement.cachedTokenCount).toBe(12);
  });

  test('and a cache salt keep equal prompts apart', () => {
    const run = setUp();
    const prompt = spec('a', { promptTokenIds: countingUp(12) });
    run.submit(prompt);
    run.drain();
    run.submit({ ...prompt, sequenceId: 'b', cacheSalt: 'another tenant' });
    expect(run.step().settlement.cachedTokenCount).toBe(0);
  });
});
