/** Side work against a device on paper: what runs, in which order, what it answers, and that live streams come first. */
import type { ExecutionPath } from '@variator/kernels/execution-path';
import type { BatchEntry } from '@variator/scheduler/batch';
import { featuresOf } from '@variator/scheduler/step-time';
import { describe, expect, test } from 'vitest';
import type { CalibrationCase, CheckPrompt } from '../fleet/link-frames.ts';
import { CHECK_CHUNK_TOKENS, CHECK_PROMPTS_AT_ONCE } from './check-generation.ts';
import { canRunSideStep, type LiveWork, type SideStepQuestion, SideWork } from './side-work.ts';

const path: ExecutionPath = {
  linear: 'linear.reference',
  attention: 'attention.reference',
  threadCount: 2,
  tokenBudget: 64,
  maxRunningCount: 8,
  draftTokenCount: 0,
  tiles: 'measured',
  splitTokens: 512,
};

const blockSize = 4;
const scratchBlockIds = Array.from({ length: 32 }, (_, index) => 100 + index);
const idle: LiveWork = { isIdle: true, itlSlackMs: null, predict: () => null };

const sideWork = (calibrationShareLimit = 1): SideWork =>
  new SideWork({ scratchBlockIds, blockSize, vocabularySize: 1000, calibrationShareLimit });

/** A token is a sum over (seed, position, all tokens before it), read through the block tables. */
function paperRun(cells: Map<number, number>, entries: readonly BatchEntry[]): number[] {
  return entries.map(({ contextLength, tokenIds, blockTable, isSampled, sampling }) => {
    const slotOf = (position: number): number =>
      (blockTable[Math.floor(position / blockSize)] ?? -1) * blockSize + (position % blockSize);
    for (const [offset, tokenId] of tokenIds.entries()) cells.set(slotOf(contextLength + offset), tokenId);
    const length = contextLength + tokenIds.length;
    const known = Array.from({ length }, (_, position) => cells.get(slotOf(position)) ?? Number.NaN);
    return isSampled ? tokenAfter(known, sampling.seed) : -1;
  });
}

function tokenAfter(tokenIds: readonly number[], seed: number): number {
  return tokenIds.reduce((sum, tokenId, position) => (sum * 31 + tokenId * (position + 1)) % 997, seed);
}

function tokensAlone({ promptTokenIds, maxTokens, seed }: CheckPrompt): number[] {
  const tokenIds = [...promptTokenIds];
  for (let count = 0; count < maxTokens; count += 1) tokenIds.push(tokenAfter(tokenIds, seed));
  return tokenIds.slice(promptTokenIds.length);
}

const prompt = (length: number, maxTokens: number, seed: number): CheckPrompt => ({
  promptTokenIds: Array.from({ length }, (_, at) => (at * 7 + seed) % 900),
  maxTokens,
  temperature: seed % 2,
  seed,
});

describe('a check', () => {
  test('generates what each prompt yields alone, in few small steps', () => {
    const prompts = [prompt(1, 3, 1), prompt(90, 20, 2), prompt(9, 6, 3), prompt(8, 1, 4), prompt(30, 5, 5)];
    const work = sideWork();
    expect(work.addCheck('c', path, prompts)).toEqual([]);
    const cells = new Map<number, number>();
    for (let steps = 0; steps < 100; steps += 1) {
      const step = work.next(steps, idle);
      if (step === null) throw new Error('The check stopped before its end.');
      expect(step).toMatchObject({ kind: 'check', callId: 'c', path });
      expect(step.entries.length).toBeLessThanOrEqual(CHECK_PROMPTS_AT_ONCE);
      const { prefillTokenCount } = featuresOf(step.entries);
      expect(prefillTokenCount).toBeLessThanOrEqual(CHECK_CHUNK_TOKENS);
      for (const { blockTable, contextLength, tokenIds } of step.entries) {
        expect(blockTable).toHaveLength(Math.ceil((contextLength + tokenIds.length) / blockSize));
        for (const blockId of blockTable) expect(scratchBlockIds).toContain(blockId);
      }
      const answers = work.settle(step, paperRun(cells, step.entries), 1);
      if (answers.length === 0) continue;
      expect(answers).toEqual([
        { type: 'checked', callId: 'c', outputs: prompts.map(tokensAlone), fault: '' },
      ]);
      expect(work.next(steps + 1, idle)).toBeNull();
      return;
    }
    throw new Error('The check never ended.');
  });

  const refusals: [string, CheckPrompt[], RegExp | ''][] = [
    ['without prompts with nothing', [], ''],
    ['with an empty prompt with a fault', [prompt(0, 4, 1)], /no tokens/],
    ['for no token with a fault', [prompt(4, 0, 1)], /wants 0 tokens/],
    ['that outgrows the scratch blocks with a fault', [prompt(120, 9, 1)], /120 tokens and 9.*128 tokens/],
  ];
  test.each(refusals)('%s is answered at once', (_, prompts, fault) => {
    const expected = fault === '' ? '' : expect.stringMatching(fault);
    expect(sideWork().addCheck('c', path, prompts)).toEqual([
      { type: 'checked', callId: 'c', outputs: [], fault: expected },
    ]);
  });

  test('ends with a fault when the device refuses a step, and the next call goes on', () => {
    const work = sideWork();
    work.addCheck('one', path, [prompt(4, 2, 1)]);
    work.addCheck('two', path, [prompt(4, 1, 1)]);
    const step = work.next(0, idle);
    if (step === null) throw new Error('There was no step.');
    expect(work.fail(step, 'no such kernel')).toEqual([
      { type: 'checked', callId: 'one', outputs: [], fault: 'A check step failed: no such kernel' },
    ]);
    expect(work.next(1, idle)?.callId).toBe('two');
  });

  test('goes before calibration and is not interrupted by it', () => {
    const work = sideWork();
    work.addCalibration('cal', path, [
      { decodeSequenceCount: 1, decodeContextTokens: 0, prefillTokens: 0, prefillContextTokens: 0 },
    ]);
    work.addCheck('c', path, [prompt(4, 2, 1)]);
    const first = work.next(0, idle);
    if (first === null) throw new Error('There was no step.');
    expect(first.kind).toBe('check');
    work.settle(first, [5], 1);
    expect(work.next(1, { ...idle, isIdle: false })).toBeNull();
    expect(work.next(1, idle)?.kind).toBe('check');
  });

  test('that was cleared settles into nothing', () => {
    const work = sideWork();
    work.addCheck('c', path, [prompt(4, 1, 1)]);
    const step = work.next(0, idle);
    if (step === null) throw new Error('There was no step.');
    work.clear();
    expect(work.settle(step, [5], 1)).toEqual([]);
    expect(work.fail(step, 'late')).toEqual([]);
    expect(work.next(1, idle)).toBeNull();
  });
});

describe('a calibration', () => {
  const cases: CalibrationCase[] = [
    { decodeSequenceCount: 0, decodeContextTokens: 0, prefillTokens: 64, prefillContextTokens: 1001 },
    { decodeSequenceCount: 8, decodeContextTokens: 4003, prefillTokens: 0, prefillContextTokens: 0 },
    { decodeSequenceCount: 3, decodeContextTokens: 30, prefillTokens: 17, prefillContextTokens: 6 },
  ];

  test('times the cases as asked, the smallest first, on scratch blocks that no two sequences write', () => {
    const work = sideWork();
    work.addCalibration('cal', path, cases);
    const seen: unknown[] = [];
    for (let count = 1; count <= cases.length; count += 1) {
      const step = work.next(1e6 * count, idle);
      if (step === null) throw new Error('There was no step.');
      const features = featuresOf(step.entries);
      seen.push([features.decodeSequenceCount, features.decodeContextTokens, features.prefillTokenCount]);
      const written = step.entries.flatMap(({ blockTable, contextLength, tokenIds }) => {
        expect(blockTable).toHaveLength(Math.ceil((contextLength + tokenIds.length) / blockSize));
        for (const blockId of blockTable) expect(scratchBlockIds).toContain(blockId);
        for (const tokenId of tokenIds) expect(tokenId).toBeLessThan(1000);
        return blockTable.slice(Math.floor(contextLength / blockSize));
      });
      expect(new Set(written).size).toBe(written.length);
      const answers = work.settle(step, [], 10 * count);
      expect(answers).toEqual(
        count < cases.length
          ? []
          : [{ type: 'calibrated', callId: 'cal', stepCount: 3, deviceMs: 60, fault: '' }],
      );
    }
    expect(seen).toEqual([
      [8, 4003, 0],
      [3, 30, 17],
      [0, 0, 64],
    ]);
  });

  test('is the same each time', () => {
    const entries = [sideWork(), sideWork()].map((work) => {
      work.addCalibration('cal', path, cases);
      return work.next(0, idle)?.entries;
    });
    expect(entries[0]).toEqual(entries[1]);
    expect(entries[0]).toBeDefined();
  });

  const refusals: [string, CalibrationCase[], RegExp | ''][] = [
    ['without cases with nothing', [], ''],
    [
      'without a token with a fault',
      [{ decodeSequenceCount: 0, decodeContextTokens: 9, prefillTokens: 0, prefillContextTokens: 0 }],
      /without a token/,
    ],
    [
      'beyond the scratch blocks with a fault',
      [{ decodeSequenceCount: 4, decodeContextTokens: 0, prefillTokens: 120, prefillContextTokens: 0 }],
      /writes 34 KV blocks; 32 are reserved/,
    ],
    [
      'of broken numbers with a fault',
      [{ decodeSequenceCount: -1, decodeContextTokens: 0.5, prefillTokens: 1, prefillContextTokens: 0 }],
      /decodeSequenceCount, decodeContextTokens is not one/,
    ],
  ];
  test.each(refusals)('%s is answered at once', (_, refused, fault) => {
    const expected = fault === '' ? '' : expect.stringMatching(fault);
    expect(sideWork().addCalibration('cal', path, refused)).toEqual([
      { type: 'calibrated', callId: 'cal', stepCount: 0, deviceMs: 0, fault: expected },
    ]);
  });

  test('keeps to its share of the time and says when the next step is due', () => {
    const work = sideWork(0.02);
    work.addCalibration('cal', path, [...cases, ...cases]);
    const startedAt = 5000;
    let spentMs = 0;
    let now = startedAt;
    for (let wakes = 0; wakes < 20; wakes += 1) {
      const step = work.next(now, { ...idle, predict: () => 30 });
      if (step !== null) {
        spentMs += 30;
        expect(spentMs).toBeLessThanOrEqual(0.02 * (now - startedAt) + 1e-9);
        work.settle(step, [], 30);
        continue;
      }
      const waitMs = work.untilNextMs(now);
      if (waitMs === null) break;
      now += Math.ceil(waitMs);
    }
    expect(spentMs).toBe(6 * 30);
    expect(work.untilNextMs(now)).toBeNull();
  });

  test('too many calls at once are refused', () => {
    const work = sideWork();
    const answers = Array.from({ length: 17 }, (_, index) => work.addCalibration(`${index}`, path, cases));
    expect(answers.slice(0, 16).flat()).toEqual([]);
    expect(answers[16]).toMatchObject([{ fault: expect.stringMatching(/16 calls/) }]);
  });
});

describe('a side step may go', () => {
  const question: SideStepQuestion = {
    kind: 'calibration',
    isIdle: false,
    itlSlackMs: 20,
    expectedMs: 10,
    liveStepsSinceSideStep: 3,
    calibrationMs: 0,
    elapsedMs: 1000,
    calibrationShareLimit: 0.02,
  };
  const answers: [string, Partial<SideStepQuestion>, boolean][] = [
    ['a calibration that fits the slack', {}, true],
    ['a calibration longer than the slack', { itlSlackMs: 9 }, false],
    ['a calibration of unknown length beside streams', { expectedMs: null }, false],
    ['a calibration of unknown length on an idle worker', { expectedMs: null, isIdle: true }, true],
    ['a calibration beside prefills alone', { expectedMs: null, itlSlackMs: null }, true],
    ['a calibration beyond its share', { calibrationMs: 11 }, false],
    ['a calibration beyond its share on an idle worker', { calibrationMs: 11, isIdle: true }, false],
    ['a calibration after two live steps', { liveStepsSinceSideStep: 2 }, false],
    ['a check longer than the slack', { kind: 'check', itlSlackMs: 0 }, true],
    ['a check after two live steps', { kind: 'check', liveStepsSinceSideStep: 2 }, false],
    ['a check on an idle worker', { kind: 'check', liveStepsSinceSideStep: 0, isIdle: true }, true],
  ];
  test.each(answers)('or not: %s', (_, change, answer) => {
    expect(canRunSideStep({ ...question, ...change })).toBe(answer);
  });
});
