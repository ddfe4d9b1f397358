/** The gates of scheduling on a virtual clock, seeds 1 to 5; `npm run bench -- optimizer scheduling` reports 6 to 10. */
import { describe, expect, test } from 'vitest';
import { openSequence } from './open-sequence.ts';
import { ProgramService } from './program-service.ts';
import { besideFigures, loadedFigures, tenantGap } from './scheduling-gates.fixture.ts';
import type { SequenceSpec, ServiceTier } from './sequence.ts';
import { runVirtually, type VirtualArrival } from './virtual-clock.fixture.ts';

const seeds = [1, 2, 3, 4, 5];

describe('on a device that is 5 % slower than its fit, and scatters', () => {
  test.each(seeds)('at 0.8 load gaps keep their objective and nobody waits long (seed %i)', (seed) => {
    const { load, itlShare, longestWait } = loadedFigures(seed);
    expect(load).toBeGreaterThan(0.7);
    expect(itlShare).toBeLessThanOrEqual(1.05);
    expect(longestWait).toBeLessThanOrEqual(10);
  });

  test.each(seeds)('two backlogged tenants stay within two of the largest requests (seed %i)', (seed) => {
    expect(tenantGap(seed)).toBeLessThanOrEqual(2);
  });

  test.each(seeds)('a batch file is hardly felt, and fills what people leave (seed %i)', (seed) => {
    const { itlRatio, throughputRatio } = besideFigures(seed, 60_000);
    expect(itlRatio).toBeLessThanOrEqual(1.2);
    expect(throughputRatio).toBeGreaterThanOrEqual(1.3);
  });
});

const spec = (program: string, serviceTier: ServiceTier = 'default'): SequenceSpec => ({
  sequenceId: 's',
  promptTokenIds: [1],
  generatedTokenIds: [],
  sampling: { temperature: 0, topP: 1, topK: 0, seed: 1 },
  maxTokens: 1,
  stopTokenIds: [],
  tenant: 't',
  program,
  serviceTier,
  objectives: { ttftMs: 0, itlMs: 0 },
  ageLimits: null,
  cacheSalt: '',
});

describe('a program', () => {
  test('steps back by levels with what it has had, less than its tier steps back behind the next', () => {
    const programs = new ProgramService();
    const handicaps = [1000, 1000, 4000, 8000, 100_000, 1e6].map((deviceMs) => {
      programs.charged(openSequence(spec('p'), 1, 0, 0), deviceMs, 0);
      return programs.handicapMs(spec('p'), Number.POSITIVE_INFINITY, 0);
    });
    expect(handicaps).toEqual([0, 1000, 3000, 7000, 31_000, 42_000]);
    expect(programs.handicapMs(spec('p', 'priority'), Number.POSITIVE_INFINITY, 0)).toBe(2000);
    expect(programs.handicapMs(spec('other'), Number.POSITIVE_INFINITY, 0)).toBe(0);
    expect(programs.handicapMs({ ...spec('p'), tenant: 'u' }, Number.POSITIVE_INFINITY, 0)).toBe(0);
    expect(programs.handicapMs(spec('p'), 350, 0)).toBe(350);
  });

  test('is forgiven with time, and sequences of no program are nobody’s', () => {
    const programs = new ProgramService();
    programs.charged(openSequence(spec('p'), 1, 0, 0), 8000, 0);
    expect(programs.attainedMs(spec('p'), 600_000)).toBeCloseTo(4000, 9);
    programs.charged(openSequence(spec(''), 1, 0, 0), 8000, 0);
    expect(programs.handicapMs(spec(''), Number.POSITIVE_INFINITY, 0)).toBe(0);
  });

  test('that has had much lets a short one go before it, though it came first; and still gets to its end', () => {
    const arrivals: VirtualArrival[] = [
      { at: 0, promptTokens: 1500, completionTokens: 20, program: 'long' },
      ...Array.from({ length: 6 }, () => ({
        at: 3000,
        promptTokens: 1500,
        completionTokens: 20,
        program: 'long',
      })),
      { at: 3001, promptTokens: 20, completionTokens: 5, program: 'short' },
    ];
    const options = {
      blockCount: 1024,
      blockSize: 16,
      maxModelLenTokens: 2048,
      limits: { tokenBudget: 256, maxRunningCount: 1 },
      numericsId: 'A',
    };
    const betaMs = {
      perStep: 10,
      perToken: 2,
      perTokenAboveKnee: 0,
      perDecodeSequence: 0,
      perPrefillSequence: 0,
      perDecodeContextToken: 0,
      perPrefillAttention: 0,
    };
    const identity = { fitId: 'f', deviceKind: 'cpu', modelHash: 'm', kernelsId: 'k', fittedAt: 0 };
    const errors = { heldOutMape: null, heldOutCount: 0, logBand90: null };
    const fit = { ...identity, ...errors, sampleCount: 1, kneeTokens: 8, betaMs };
    const { requests } = runVirtually({ arrivals, options, device: fit, fit, seed: 1 });
    const endedAt = requests.map((request) => request.endedAt ?? Number.POSITIVE_INFINITY);
    expect(endedAt.every(Number.isFinite)).toBe(true);
    // Only the one that ran when it came, though six more came before it.
    expect(endedAt.filter((at) => at < (endedAt.at(-1) ?? 0))).toHaveLength(1);
  });
});
