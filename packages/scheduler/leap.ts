/**
 * Many steps at once, for a virtual clock: while all that run only decode and nobody comes in, goes or expires, every step
 * is the one before with one more token of context each. What is booked is what as many turns of schedule and settle book:
 * the same tokens, blocks, hashes and ends, and accounts whose sums differ by rounding alone. Called by scheduler.ts.
 */
import type { BlockTables } from './block-tables.ts';
import type { SchedulerState } from './compose.ts';
import { addToken, comparePreemption, type OpenSequence } from './open-sequence.ts';
import type { ProgramService } from './program-service.ts';
import type { EndedSequence } from './sequence.ts';
import { endSequence, isFullLength, tokensLeft } from './sequence-end.ts';
import { type StepFeatures, type StepTimeFit, sevenTermsMs } from './step-time.ts';

export interface LeapQuestion {
  /** When the first step begins. */
  readonly now: number;
  /** No further step begins at this time or later. */
  readonly untilMs: number;
  readonly mostSteps: number;
  /** From a step's settling to the next one's beginning. */
  readonly betweenMs: number;
  /** What every sequence gets in every step. */
  readonly tokenId: number;
  /** Asked once for each step, in their order: so noise is drawn as it would be for single steps. */
  deviceMsOf(features: StepFeatures): number;
}

export interface Leap {
  readonly firstStepId: number;
  /** One each a step. */
  readonly features: readonly StepFeatures[];
  readonly deviceMs: readonly number[];
  readonly settledAt: readonly number[];
  /** When the step after it may begin. */
  readonly nextAt: number;
  /** In the order of the batches' entries; each got a token of every step. */
  readonly sequenceIds: readonly string[];
  /** Of each, when it got the token before. */
  readonly lastTokenAt: readonly number[];
  /** Of the steps together; all of it for decoding. */
  readonly chargedMs: number;
  readonly ended: readonly EndedSequence[];
  readonly enteredBlockHashes: readonly string[];
  readonly leftBlockHashes: readonly string[];
}

/** Who decodes in every one of the steps, and at most how many these are. */
interface LeapPlan {
  /** In the order of the batches' entries. */
  readonly sequences: readonly OpenSequence[];
  readonly stepCount: number;
}

/** Books as many steps alike as there are, at most those asked for; null, and nothing done, where there is none. */
export function leapSteps(state: SchedulerState, question: LeapQuestion, firstStepId: number): Leap | null {
  const plan = planLeap(state, question);
  if (plan === null) return null;
  const { sequences } = plan;
  const lastTokenAt = sequences.map((sequence) => sequence.lastTokenAt ?? question.now);
  const steps = runLeap(state, plan, question);
  const stepCount = steps.features.length;
  const settledLast = steps.settledAt[stepCount - 1] ?? question.now;
  let chargedMs = 0;
  chargeLeap(sequences, steps, state.fit, state.programs, (sequence, deviceMs) => {
    state.tenants.charged(sequence, deviceMs);
    chargedMs += deviceMs;
  });
  const ended: EndedSequence[] = [];
  for (const sequence of sequences) {
    sequence.lastStepId = firstStepId + stepCount - 1;
    sequence.lastTokenAt = settledLast;
    if (isFullLength(state, sequence)) ended.push(endSequence(state, sequence, 'length', '', settledLast));
  }
  const { entered, left } = state.tables.takeCacheChanges();
  return {
    ...steps,
    firstStepId,
    sequenceIds: sequences.map(({ spec }) => spec.sequenceId),
    lastTokenAt,
    chargedMs,
    ended,
    enteredBlockHashes: entered,
    leftBlockHashes: left,
  };
}

/** Null where the next step is not of this kind, or might not be. */
function planLeap(state: SchedulerState, question: LeapQuestion): LeapPlan | null {
  const { running, waiting, limits, tables } = state;
  const count = running.length;
  if (count === 0 || count > limits.tokenBudget || (limits.draftTokenCount ?? 0) > 0) return null;
  // Those that wait change nothing while no place is free; flex that runs may have to make one.
  const isClosed = count >= limits.maxRunningCount || count === limits.tokenBudget;
  if (waiting.count > 0 && !isClosed) return null;
  let stepCount = question.mostSteps;
  let isInOrder = true;
  for (let index = 0; index < count; index += 1) {
    const sequence = running[index] as OpenSequence;
    if (!isPlainDecode(sequence, question.tokenId)) return null;
    if (waiting.count > 0 && sequence.spec.serviceTier === 'flex') return null;
    const before = running[index - 1];
    if (before !== undefined) {
      // After a step that did not hold them all they take turns.
      if (before.lastStepId !== sequence.lastStepId) return null;
      isInOrder &&= comparePreemption(before, sequence) < 0;
    }
    stepCount = Math.min(stepCount, tokensLeft(state, sequence));
  }
  // One block more for each is there after it: nobody has to go, and the eldest need not be the first.
  while (stepCount > 0 && blocksMissing(tables, running, stepCount) + count > tables.availableCount) {
    stepCount >>>= 1;
  }
  if (stepCount < 1) return null;
  return { sequences: isInOrder ? running.slice() : [...running].sort(comparePreemption), stepCount };
}

/** What steps alike need nothing but a count for. */
function isPlainDecode(sequence: OpenSequence, tokenId: number): boolean {
  const { spec, tokenIds, computedTokenCount } = sequence;
  return (
    tokenIds.length === computedTokenCount + 1 &&
    computedTokenCount >= sequence.promptTokenCount &&
    computedTokenCount >= sequence.recomputeUntil &&
    sequence.lastTokenAt !== null &&
    sequence.endWith === null &&
    sequence.tokenCounts === null &&
    spec.ageLimits === null &&
    spec.sampling.logprobCount === undefined &&
    !spec.stopTokenIds.includes(tokenId)
  );
}

function blocksMissing(tables: BlockTables, running: readonly OpenSequence[], stepCount: number): number {
  let count = 0;
  for (const { computedTokenCount, blockTable } of running) {
    count += tables.blocksFor(computedTokenCount + stepCount) - blockTable.length;
  }
  return count;
}

/** Lets the plan's sequences decode; returns what each step was. At least one step runs, the last one that may begin. */
function runLeap(
  { tables, numericsId }: SchedulerState,
  { sequences, stepCount }: LeapPlan,
  question: LeapQuestion,
): Pick<Leap, 'features' | 'deviceMs' | 'settledAt' | 'nextAt'> {
  const features: StepFeatures[] = [];
  const deviceMs: number[] = [];
  const settledAt: number[] = [];
  const count = sequences.length;
  const { blockSize } = tables;
  let decodeContextTokens = 0;
  for (const sequence of sequences) {
    decodeContextTokens += sequence.computedTokenCount;
    if (sequence.firstNumericsId !== numericsId) sequence.isMixedNumerics = true;
    if (sequence.kvNumericsId !== numericsId) sequence.isKvMixed = true;
  }
  let now = question.now;
  do {
    const step: StepFeatures = {
      tokenCount: count,
      decodeSequenceCount: count,
      prefillSequenceCount: 0,
      prefillTokenCount: 0,
      decodeContextTokens,
      prefillAttention: 0,
    };
    for (const sequence of sequences) {
      const next = sequence.computedTokenCount + 1;
      if (next > sequence.blockTable.length * blockSize) tables.grow(sequence, next);
    }
    for (const sequence of sequences) {
      sequence.computedTokenCount += 1;
      if (sequence.computedTokenCount % blockSize === 0) tables.offerFullBlocks(sequence);
      addToken(sequence, question.tokenId);
    }
    const stepMs = question.deviceMsOf(step);
    now += stepMs;
    features.push(step);
    deviceMs.push(stepMs);
    settledAt.push(now);
    now += question.betweenMs;
    decodeContextTokens += count;
  } while (features.length < stepCount && now < question.untilMs);
  return { features, deviceMs, settledAt, nextAt: now };
}

/**
 * Charges each sequence its shares of all steps: as `chargeStep` splits one, summed over steps in closed form. Of step j
 * the share is s_j (a + b5 (c + j)), with s_j = measured / predicted and a what all decodes have in common.
 */
function chargeLeap(
  sequences: readonly OpenSequence[],
  { features, deviceMs, settledAt }: Pick<Leap, 'features' | 'deviceMs' | 'settledAt'>,
  fit: StepTimeFit | null,
  programs: ProgramService,
  charged: (sequence: OpenSequence, deviceMs: number) => void,
): void {
  const count = sequences.length;
  const stepCount = features.length;
  const settledLast = settledAt[stepCount - 1] ?? 0;
  const hasPrograms = sequences.some(({ spec }) => spec.program !== '');
  // Sums over steps of s_j, of s_j j, and of both with what a program's counter forgets of it until the last step.
  let scaleSum = 0;
  let stepSum = 0;
  let keptScaleSum = 0;
  let keptStepSum = 0;
  for (let step = 0; step < stepCount; step += 1) {
    const measuredMs = deviceMs[step] ?? 0;
    const predictedMs = fit === null ? 0 : sevenTermsMs(fit, features[step] as StepFeatures);
    const scale = predictedMs > 0 ? measuredMs / predictedMs : measuredMs;
    scaleSum += scale;
    stepSum += scale * step;
    if (!hasPrograms) continue;
    const kept = programs.keptShare(settledLast - (settledAt[step] ?? 0));
    keptScaleSum += kept * scale;
    keptStepSum += kept * scale * step;
  }
  const first = features[0] as StepFeatures;
  const isFitted = fit !== null && sevenTermsMs(fit, first) > 0;
  const contextMs = isFitted ? fit.betaMs.perDecodeContextToken : 0;
  // Without a fit all decodes are alike: one token each.
  const commonMs = isFitted
    ? (sevenTermsMs(fit, first) - contextMs * first.decodeContextTokens) / count
    : 1 / count;
  for (const sequence of sequences) {
    const context = sequence.computedTokenCount - stepCount;
    const ownMs = commonMs + contextMs * context;
    const shareMs = scaleSum * ownMs + stepSum * contextMs;
    const { account } = sequence;
    account.decodeDeviceMs += shareMs;
    if (fit !== null && account.fitId !== fit.fitId) {
      account.fitId = fit.fitId;
      account.fitCount += 1;
    }
    charged(sequence, shareMs);
    if (hasPrograms) {
      programs.charged(sequence, keptScaleSum * ownMs + keptStepSum * contextMs, settledLast);
    }
  }
}
