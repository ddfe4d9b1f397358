/**
 * A batch as the flat arrays of the native border (packages/kernels/native.ts says their shapes), and the flat
 * log-probabilities of a step back into lists. Used by cpu-device.ts and cuda-device.ts. A step in which nobody asks for rules or
 * log-probabilities carries none.
 */
import type { ExecutionPath } from '@variator/kernels/execution-path';
import type { LogitRules, Scoring, StepBatch, StepInput, StepOutput } from '@variator/kernels/native';
import type { BatchEntry } from '@variator/scheduler/batch';
import type { TokenLogprobs } from '@variator/scheduler/sequence';

const TWO_TO_32 = 2 ** 32;

/** Dispatch tables, of linear layers and of attention; null for the defaults. */
export interface StepTables {
  readonly linear: Int32Array | null;
  readonly attention: Int32Array | null;
}

/** @param tables the path's */
export function stepInput(
  path: ExecutionPath,
  entries: readonly BatchEntry[],
  tables: StepTables,
): StepInput {
  return {
    linear: path.linear,
    tunings: tables.linear,
    attention: path.attention,
    attentionTunings: tables.attention,
    splitTokens: path.splitTokens,
    threadCount: path.threadCount,
    ...stepBatch(entries),
  };
}

export function stepBatch(entries: readonly BatchEntry[]): StepBatch {
  const count = entries.length;
  const tokenCount = entries.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0);
  const blockTableStride = entries.reduce((most, { blockTable }) => Math.max(most, blockTable.length), 1);
  const input = {
    tokenIds: new Int32Array(tokenCount),
    tokenStarts: new Int32Array(count + 1),
    contextLengths: new Int32Array(count),
    blockTables: new Int32Array(count * blockTableStride),
    blockTableStride,
    isSampled: new Uint8Array(count),
    draftCounts: new Int32Array(count),
    temperatures: new Float32Array(count),
    topPs: new Float32Array(count),
    topKs: new Int32Array(count),
    minPs: new Float32Array(count),
    seeds: new Uint32Array(2 * count),
    rules: entries.some(hasRules) ? logitRules(entries) : null,
    scoring: entries.some(hasScoring) ? scoring(entries, tokenCount) : null,
    isLogitsWanted: false,
  };
  let at = 0;
  entries.forEach(({ tokenIds, contextLength, blockTable, isSampled, draftCount = 0, sampling }, index) => {
    input.tokenIds.set(tokenIds, at);
    at += tokenIds.length;
    input.tokenStarts[index + 1] = at;
    input.contextLengths[index] = contextLength;
    input.blockTables.set(blockTable, index * blockTableStride);
    input.isSampled[index] = isSampled ? 1 : 0;
    input.draftCounts[index] = draftCount;
    input.temperatures[index] = sampling.temperature;
    input.topPs[index] = sampling.topP;
    input.topKs[index] = sampling.topK;
    input.minPs[index] = sampling.minP ?? 0;
    input.seeds[2 * index] = sampling.seed % TWO_TO_32;
    input.seeds[2 * index + 1] = Math.floor(sampling.seed / TWO_TO_32);
  });
  return input;
}

/** Rules matter only where a token is drawn. */
const hasRules = ({ isSampled, sampling, tokenCounts, bannedTokenIds }: BatchEntry): boolean =>
  isSampled &&
  (tokenCounts !== undefined || bannedTokenIds !== undefined || sampling.logitBias !== undefined);

const hasScoring = ({ isSampled, sampling, scoredTokenIds }: BatchEntry): boolean =>
  sampling.logprobCount !== undefined && (isSampled || scoredTokenIds !== undefined);

function logitRules(entries: readonly BatchEntry[]): LogitRules {
  const count = entries.length;
  const ruled = entries.map((entry) => (hasRules(entry) ? entry : null));
  const countTotal = ruled.reduce((sum, entry) => sum + (entry?.tokenCounts?.length ?? 0), 0);
  const biasTotal = ruled.reduce((sum, entry) => sum + biasCount(entry), 0);
  const rules = {
    repetitionPenalties: new Float32Array(count).fill(1),
    frequencyPenalties: new Float32Array(count),
    presencePenalties: new Float32Array(count),
    countStarts: new Int32Array(count + 1),
    countedTokenIds: new Int32Array(countTotal),
    tokenCounts: new Int32Array(countTotal),
    biasStarts: new Int32Array(count + 1),
    biasTokenIds: new Int32Array(biasTotal),
    biases: new Float32Array(biasTotal),
  };
  let countAt = 0;
  let biasAt = 0;
  ruled.forEach((entry, index) => {
    const { repetitionPenalty = 1, frequencyPenalty = 0, presencePenalty = 0 } = entry?.sampling ?? {};
    rules.repetitionPenalties[index] = repetitionPenalty;
    rules.frequencyPenalties[index] = frequencyPenalty;
    rules.presencePenalties[index] = presencePenalty;
    const counts = entry?.tokenCounts;
    if (counts !== undefined) {
      rules.countedTokenIds.set(counts.tokenIds.subarray(0, counts.length), countAt);
      rules.tokenCounts.set(counts.counts.subarray(0, counts.length), countAt);
      countAt += counts.length;
    }
    for (const [tokenId, bias] of entry?.sampling.logitBias ?? []) {
      rules.biasTokenIds[biasAt] = tokenId;
      rules.biases[biasAt] = bias;
      biasAt += 1;
    }
    for (const tokenId of entry?.bannedTokenIds ?? []) {
      rules.biasTokenIds[biasAt] = tokenId;
      rules.biases[biasAt] = Number.NEGATIVE_INFINITY;
      biasAt += 1;
    }
    rules.countStarts[index + 1] = countAt;
    rules.biasStarts[index + 1] = biasAt;
  });
  return rules;
}

const biasCount = (entry: BatchEntry | null): number =>
  (entry?.sampling.logitBias?.length ?? 0) + (entry?.bannedTokenIds?.length ?? 0);

function scoring(entries: readonly BatchEntry[], tokenCount: number): Scoring {
  const wanted = {
    topCounts: new Int32Array(entries.length).fill(-1),
    scoredTokenIds: new Int32Array(tokenCount).fill(-1),
  };
  let at = 0;
  entries.forEach(({ tokenIds, sampling, scoredTokenIds }, index) => {
    wanted.topCounts[index] = sampling.logprobCount ?? -1;
    if (scoredTokenIds !== undefined) wanted.scoredTokenIds.set(scoredTokenIds, at);
    at += tokenIds.length;
  });
  return wanted;
}

/** The flat tokens of a step by entry: what follows its last known token, and what follows each of its drafts. */
export function drawnTokens(
  entries: readonly BatchEntry[],
  flat: Int32Array,
): { sampledTokenIds: Int32Array; afterDraftTokenIds?: (Int32Array | null)[] } {
  if (flat.length === entries.length) return { sampledTokenIds: flat };
  const sampledTokenIds = new Int32Array(entries.length);
  let at = 0;
  const afterDraftTokenIds = entries.map(({ draftCount = 0 }, index) => {
    sampledTokenIds[index] = flat[at] ?? -1;
    const after = draftCount === 0 ? null : flat.subarray(at + 1, at + 1 + draftCount);
    at += 1 + draftCount;
    return after;
  });
  return { sampledTokenIds, afterDraftTokenIds };
}

/** One list per entry: its scored tokens in order, then its sampled one; null where the step brought none. */
export function entryLogprobs(
  entries: readonly BatchEntry[],
  { logprobTokenIds, logprobs }: Pick<StepOutput, 'logprobTokenIds' | 'logprobs'>,
): TokenLogprobs[][] | null {
  if (logprobTokenIds === null || logprobs === null) return null;
  let at = 0;
  const take = (topCount: number): TokenLogprobs => {
    const first = at + 1;
    at = first + topCount;
    return {
      logprob: logprobs[first - 1] ?? Number.NaN,
      top: Array.from({ length: topCount }, (_, rank): [number, number] => [
        logprobTokenIds[first + rank] ?? -1,
        logprobs[first + rank] ?? Number.NaN,
      ]),
    };
  };
  return entries.map(({ isSampled, sampling: { logprobCount }, scoredTokenIds }) => {
    if (logprobCount === undefined) return [];
    const scoredCount = scoredTokenIds?.filter((tokenId) => tokenId >= 0).length ?? 0;
    return Array.from({ length: scoredCount + (isSampled ? 1 : 0) }, () => take(logprobCount));
  });
}
