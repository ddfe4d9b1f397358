/**
 * What becomes of an open sequence when its worker is lost, and how what several workers did for it adds up. Pure; called
 * by open-sequences.ts, which acts. A sequence goes on from its prompt and the tokens it has; nothing is computed here.
 *
 *   open on a worker --lost--> open on another | waiting for a successor --joins--> open      ends: told to, too often, too late
 */
import type { Account, EndedSequence, SequenceSpec, SequenceStart } from '@variator/scheduler/sequence';

/** How long a sequence, or a new request, waits for a worker to take the place of the last one. */
export const SUCCESSOR_WAIT_MS = 30_000;
/** A sequence whose workers keep dying may be why they do. */
export const MOST_RESUMES = 8;
export const MOST_FRUITLESS_RESUMES = 3;

export interface LostSequence {
  /** What it was told to end with; its worker was lost before it could say so. */
  readonly endWith: 'stop' | 'cancelled' | null;
  readonly resumeCount: number;
  /** Resumes since its last token. */
  readonly fruitlessResumeCount: number;
}

export interface LossSituation {
  readonly isClosing: boolean;
  /** Another worker has joined already. */
  readonly hasWorker: boolean;
  /** One may still join in time. */
  readonly isSuccessorExpected: boolean;
}

export type Fate =
  | { readonly kind: 'resume' }
  | { readonly kind: 'wait' }
  | { readonly kind: 'end'; readonly reason: 'stop' | 'cancelled' }
  | { readonly kind: 'fail'; readonly why: string };

export function fateOf(lost: LostSequence, situation: LossSituation): Fate {
  if (lost.endWith !== null) return { kind: 'end', reason: lost.endWith };
  if (situation.isClosing) return { kind: 'fail', why: 'the gateway is closing' };
  if (lost.fruitlessResumeCount >= MOST_FRUITLESS_RESUMES) {
    return {
      kind: 'fail',
      why: `${lost.fruitlessResumeCount + 1} workers in a row were lost before its next token`,
    };
  }
  if (lost.resumeCount >= MOST_RESUMES) {
    return { kind: 'fail', why: `it was resumed ${lost.resumeCount} times already` };
  }
  if (situation.hasWorker) return { kind: 'resume' };
  return situation.isSuccessorExpected
    ? { kind: 'wait' }
    : { kind: 'fail', why: 'no other worker took its place in time' };
}

/** The sequence as the next worker gets it. Its name differs, so that a late word of the lost worker is nobody's. */
export function resumedSpec(
  spec: SequenceSpec,
  generatedTokenIds: readonly number[],
  resumeCount: number,
): SequenceSpec {
  if (resumeCount === 0) return spec;
  return {
    ...spec,
    sequenceId: `${spec.sequenceId}~${resumeCount}`,
    generatedTokenIds: [...generatedTokenIds],
  };
}

/** What both charged. A fit that two workers used one after the other counts once. */
export function addAccounts(before: Account, after: Account): Account {
  const isSameFit = after.fitCount === 1 && after.fitId === before.fitId;
  return {
    prefillDeviceMs: before.prefillDeviceMs + after.prefillDeviceMs,
    decodeDeviceMs: before.decodeDeviceMs + after.decodeDeviceMs,
    speculationWasteDeviceMs: before.speculationWasteDeviceMs + after.speculationWasteDeviceMs,
    recomputeDeviceMs: before.recomputeDeviceMs + after.recomputeDeviceMs,
    fitId: after.fitId === '' ? before.fitId : after.fitId,
    fitCount: before.fitCount + (isSameFit ? 0 : after.fitCount),
  };
}

export const emptyAccount: Account = {
  prefillDeviceMs: 0,
  decodeDeviceMs: 0,
  speculationWasteDeviceMs: 0,
  recomputeDeviceMs: 0,
  fitId: '',
  fitCount: 0,
};

export interface EarlierWork {
  /** The client's name of the sequence. */
  readonly sequenceId: string;
  /** Charged by the workers that were lost. */
  readonly account: Account;
  /** From the worker that gave its first token; null before that. */
  readonly start: SequenceStart | null;
  /** Of what gave its tokens and found its end. */
  readonly numericsIds: ReadonlySet<string>;
}

/** How the whole sequence ended, where its last worker knows only of its own part. */
export function wholeEnd(ended: EndedSequence, earlier: EarlierWork): EndedSequence {
  const { sequenceId, account, start, numericsIds } = earlier;
  return {
    ...ended,
    sequenceId,
    account: addAccounts(account, ended.account),
    cachedTokenCount: start?.cachedTokenCount ?? ended.cachedTokenCount,
    queueMs: start?.queueMs ?? ended.queueMs,
    isMixedNumerics: ended.isMixedNumerics || numericsIds.size > 1,
  };
}
