/**
 * What every trace becomes: sessions of turns, in order of their start, as plain data. The readers make it, scale-lengths.ts
 * shrinks it, prompt-writer.ts turns its prompts into text or token ids, drive-sessions.ts sends it. A request without a
 * conversation is a session of one turn.
 */

/** A stretch of a prompt. Equal keys at equal places stand for equal tokens, so that a prefix cache finds what was recorded. */
export interface PromptPart {
  readonly key: string;
  readonly tokenCount: number;
  /** The turn whose answer it repeats; null: nobody's. */
  readonly answerOf: number | null;
}

export interface PromptMessage {
  readonly role: 'system' | 'user' | 'assistant';
  readonly text: string;
  readonly answerOf: number | null;
}

export type PlannedPrompt =
  | { readonly kind: 'parts'; readonly parts: readonly PromptPart[] }
  | { readonly kind: 'messages'; readonly messages: readonly PromptMessage[] };

/** '' asks for none. */
export type AskedTier = '' | 'priority' | 'default' | 'flex';

export interface PlannedTurn {
  /** From the end of the turn before to its sending: a tool at work, a person who reads. 0 for the first. */
  readonly pauseMs: number;
  readonly prompt: PlannedPrompt;
  readonly outputTokenCount: number;
}

export interface PlannedSession {
  readonly sessionId: string;
  /** The whole that several sessions belong to; '' where there is none. */
  readonly programId: string;
  readonly serviceTier: AskedTier;
  /** From the start of the trace; never less than that of the session before. */
  readonly startsAtMs: number;
  readonly turns: readonly PlannedTurn[];
}

export interface TrafficSource {
  /** Read as it is sent; a long trace is never in memory as a whole. */
  readonly sessions: AsyncIterable<PlannedSession>;
  readonly faults: TraceFaults;
  /** What was changed or left out to make it sendable, one sentence each; whole once all is read. */
  remarks(): readonly string[];
  /** How much of it was read, 0 to 1; null where that is not known. */
  readShare(): number | null;
}

/** Lines and files that could not be used, by reason, with the place of the first of each. */
export class TraceFaults {
  readonly #byReason = new Map<string, { count: number; readonly first: string }>();

  add(reason: string, place: string): void {
    const known = this.#byReason.get(reason);
    if (known) known.count += 1;
    else this.#byReason.set(reason, { count: 1, first: place });
  }

  get count(): number {
    return this.list().reduce((sum, { count }) => sum + count, 0);
  }

  list(): { readonly reason: string; readonly count: number; readonly first: string }[] {
    return [...this.#byReason].map(([reason, { count, first }]) => ({ reason, count, first }));
  }
}
