import { noGuesses } from '@variator/scheduler/guess-watch';
import type { Account, EndedSequence, SequenceSpec } from '@variator/scheduler/sequence';
import { expect, it } from 'vitest';
import {
  addAccounts,
  emptyAccount,
  type Fate,
  fateOf,
  type LossSituation,
  type LostSequence,
  MOST_FRUITLESS_RESUMES,
  MOST_RESUMES,
  resumedSpec,
  wholeEnd,
} from './lost-sequence.ts';

const fresh: LostSequence = { endWith: null, resumeCount: 0, fruitlessResumeCount: 0 };
const alone: LossSituation = { isClosing: false, hasWorker: false, isSuccessorExpected: true };

it.each<[string, Partial<LostSequence>, Partial<LossSituation>, Partial<Fate>]>([
  ['waits for a successor where it was the last worker', {}, {}, { kind: 'wait' }],
  ['goes to another worker at once', {}, { hasWorker: true }, { kind: 'resume' }],
  ['fails where nobody is expected any more', {}, { isSuccessorExpected: false }, { kind: 'fail' }],
  ['fails when the gateway closes', {}, { isClosing: true, hasWorker: true }, { kind: 'fail' }],
  ['ends as it was told to', { endWith: 'stop' }, { hasWorker: true }, { kind: 'end', reason: 'stop' }],
  [
    'ends as it was told to, also at the close',
    { endWith: 'cancelled' },
    { isClosing: true },
    { kind: 'end' },
  ],
  [
    'goes on again after other workers were lost',
    { resumeCount: MOST_RESUMES - 1 },
    { hasWorker: true },
    { kind: 'resume' },
  ],
  ['fails after too many', { resumeCount: MOST_RESUMES }, { hasWorker: true }, { kind: 'fail' }],
  [
    'fails sooner where no worker got a token out of it',
    { resumeCount: MOST_FRUITLESS_RESUMES, fruitlessResumeCount: MOST_FRUITLESS_RESUMES },
    { hasWorker: true },
    { kind: 'fail' },
  ],
])('a lost sequence %s', (_what, lost, situation, fate) => {
  expect(fateOf({ ...fresh, ...lost }, { ...alone, ...situation })).toMatchObject(fate);
});

const spec: SequenceSpec = {
  sequenceId: 'a',
  promptTokenIds: [1, 2],
  generatedTokenIds: [],
  sampling: { temperature: 0, topP: 1, topK: 0, seed: 3 },
  maxTokens: 9,
  stopTokenIds: [],
  tenant: 't',
  program: '',
  serviceTier: 'default',
  objectives: { ttftMs: 0, itlMs: 0 },
  ageLimits: null,
  cacheSalt: 't',
};

it('a resumed sequence is the same question with its tokens so far, under another name', () => {
  expect(resumedSpec(spec, [], 0)).toBe(spec);
  expect(resumedSpec(spec, [7, 8], 2)).toEqual({ ...spec, sequenceId: 'a~2', generatedTokenIds: [7, 8] });
});

const account = (change: Partial<Account>): Account => ({ ...emptyAccount, ...change });

it('accounts of several workers add up, and a fit used on both counts once', () => {
  const before = account({ prefillDeviceMs: 1, decodeDeviceMs: 2, fitId: 'f', fitCount: 2 });
  const after = account({ decodeDeviceMs: 3, recomputeDeviceMs: 4, fitId: 'f', fitCount: 1 });
  expect(addAccounts(before, after)).toEqual({
    prefillDeviceMs: 1,
    decodeDeviceMs: 5,
    speculationWasteDeviceMs: 0,
    recomputeDeviceMs: 4,
    fitId: 'f',
    fitCount: 2,
  });
  expect(addAccounts(before, account({ fitId: 'g', fitCount: 1 }))).toMatchObject({
    fitId: 'g',
    fitCount: 3,
  });
  expect(addAccounts(before, emptyAccount)).toEqual(before);
});

const ended: EndedSequence = {
  sequenceId: 'a~1',
  reason: 'length',
  message: '',
  account: account({ decodeDeviceMs: 5 }),
  promptTokenCount: 2,
  cachedTokenCount: 0,
  completionTokenCount: 9,
  preemptionCount: 0,
  speculatedTokenCount: 0,
  acceptedTokenCount: 0,
  guesses: noGuesses,
  queueMs: 800,
  isMixedNumerics: false,
};

it('the whole end says what the first worker knew and what all charged', () => {
  const earlier = {
    sequenceId: 'a',
    account: account({ decodeDeviceMs: 6 }),
    start: { sequenceId: 'a', cachedTokenCount: 16, queueMs: 2 },
    numericsIds: new Set(['n']),
  };
  expect(wholeEnd(ended, earlier)).toEqual({
    ...ended,
    sequenceId: 'a',
    cachedTokenCount: 16,
    queueMs: 2,
    account: account({ decodeDeviceMs: 11 }),
  });
  expect(wholeEnd(ended, { ...earlier, start: null })).toMatchObject({ queueMs: 800, cachedTokenCount: 0 });
});

it('tokens of two numerics are marked', () => {
  const earlier = { sequenceId: 'a', account: emptyAccount, start: null, numericsIds: new Set(['n', 'm']) };
  expect(wholeEnd(ended, earlier).isMixedNumerics).toBe(true);
});
