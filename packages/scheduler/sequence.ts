/**
 * The nouns of the scheduler: what is submitted, what it was charged, how it ends. Plain data, made by the gateway,
 * carried by the link, owned by the scheduler. No clock, no I/O.
 */

export type ServiceTier = 'priority' | 'default' | 'flex';
/**
 * Why a sequence ended. `stop`: an end-of-sequence token, or the gateway found a stop string. `expired`: it grew older
 * than its age limits allow.
 */
export type EndReason = 'stop' | 'length' | 'cancelled' | 'error' | 'expired';

/** How tokens are chosen. What few requests ask for is absent where it is off, on the link too. */
export interface Sampling {
  /** 0 is greedy. */
  readonly temperature: number;
  /** 1 is off. */
  readonly topP: number;
  /** 0 is off. */
  readonly topK: number;
  /** Drawn by the gateway where the client gave none; a whole number from 0 to 2^53 - 1. */
  readonly seed: number;
  /** Least probability of a token as a share of the likeliest one's. */
  readonly minP?: number;
  /** Subtracted once from the logit of every token generated before. */
  readonly presencePenalty?: number;
  /** Subtracted from a logit for every time its token was generated. */
  readonly frequencyPenalty?: number;
  /** Divides positive logits and multiplies negative ones, of every token of prompt and answer. */
  readonly repetitionPenalty?: number;
  /** Pairs of a token id and what is added to its logit. */
  readonly logitBias?: readonly (readonly [tokenId: number, bias: number])[];
  /** Stop tokens are not sampled before so many tokens were generated. */
  readonly minTokens?: number;
  /** Log-probabilities with every generated token: its own, and so many of the likeliest. */
  readonly logprobCount?: number;
  /** The prompt's log-probabilities too, as many for each; such a sequence computes its whole prompt itself. */
  readonly isPromptScored?: boolean;
}

/** A token's log-probability by the model alone: before penalties, biases, temperature and truncation. */
export interface TokenLogprobs {
  readonly logprob: number;
  /** The likeliest tokens in its place, the likeliest first. */
  readonly top: readonly (readonly [tokenId: number, logprob: number])[];
}

export interface Objectives {
  /** Both are 0 where nobody watches the tokens come: an answer that is not streamed has no first token to feel. */
  readonly ttftMs: number;
  readonly itlMs: number;
}

/** From submission; null is no limit. */
export interface AgeLimits {
  /** Until its first step. */
  readonly queueMs: number | null;
  /** Until its end. */
  readonly totalMs: number | null;
}

/** A request's tokens as the scheduler takes them in. */
export interface SequenceSpec {
  readonly sequenceId: string;
  readonly promptTokenIds: readonly number[];
  /** Tokens it had already produced elsewhere (resumed after a lost worker); usually empty. */
  readonly generatedTokenIds: readonly number[];
  readonly sampling: Sampling;
  readonly maxTokens: number;
  /** Ends the sequence when sampled (the model's end-of-sequence ids); empty with ignore_eos. */
  readonly stopTokenIds: readonly number[];
  readonly tenant: string;
  readonly program: string;
  readonly serviceTier: ServiceTier;
  readonly objectives: Objectives;
  /** null: it may grow as old as it gets. */
  readonly ageLimits: AgeLimits | null;
  /** Prompt and result may be shared through the prefix cache only among equal salts. */
  readonly cacheSalt: string;
}

/** Device milliseconds charged to one sequence so far. Their sum over sequences is the sum of the steps' deviceMs. */
export interface Account {
  readonly prefillDeviceMs: number;
  readonly decodeDeviceMs: number;
  readonly speculationWasteDeviceMs: number;
  readonly recomputeDeviceMs: number;
  /** The last fit that split a step for it; '' before the first fit. */
  readonly fitId: string;
  readonly fitCount: number;
}

export interface TokenEvent {
  readonly sequenceId: string;
  readonly tokenId: number;
  /** 0 for the first generated token. */
  readonly index: number;
  /** Where asked for. */
  readonly logprobs?: TokenLogprobs;
  /** With the first token, where asked for: of the prompt's tokens from the second on. */
  readonly promptLogprobs?: readonly TokenLogprobs[];
}

/** What is known once a sequence's first token is out, and would be lost with its worker. */
export interface SequenceStart {
  readonly sequenceId: string;
  readonly cachedTokenCount: number;
  readonly queueMs: number;
}

/** What guesses at its tokens would have been worth, whether or not any was verified (see guess-watch.ts). */
export interface GuessCounts {
  /** Generated tokens that were looked at; 0 where none was: then the others say nothing. */
  readonly watchedTokenCount: number;
  /** Of these, such that a guess was there at them. */
  readonly guessedTokenCount: number;
  /** Of these, guessed right. */
  readonly rightGuessCount: number;
  /** Stretches of tokens guessed right one after the other. */
  readonly rightRunCount: number;
}

export interface EndedSequence {
  readonly sequenceId: string;
  readonly reason: EndReason;
  /** For `error`: what went wrong. Otherwise ''. */
  readonly message: string;
  readonly account: Account;
  readonly promptTokenCount: number;
  /** Prompt tokens taken from the prefix cache at first admission. */
  readonly cachedTokenCount: number;
  readonly completionTokenCount: number;
  readonly preemptionCount: number;
  /** Guesses at its tokens that were verified, and those of them that were right. */
  readonly speculatedTokenCount: number;
  readonly acceptedTokenCount: number;
  readonly guesses: GuessCounts;
  /** From submission to first being scheduled, by the caller's clock. */
  readonly queueMs: number;
  /** True where steps of more than one numericsId computed it. */
  readonly isMixedNumerics: boolean;
  /** Where asked for and no token came to bring them. */
  readonly promptLogprobs?: readonly TokenLogprobs[];
}
