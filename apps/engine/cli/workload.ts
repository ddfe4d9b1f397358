/**
 * Workloads as plain data: what a replay sends, when, and why it is hard for one path. Pure, seeded; used by replay.ts,
 * the benches and the end-to-end test. Sends nothing.
 */

export interface PlannedRequest {
  /** Milliseconds from the start of its phase; null: as soon as one of `concurrency` slots is free (closed loop). */
  readonly atMs: number | null;
  readonly prompt: string;
  readonly maxTokens: number;
  readonly isStreamed: boolean;
  readonly session: string;
}

export interface Phase {
  readonly name: 'chats' | 'flood';
  readonly durationMs: number;
  /** Requests under way at once, for requests without a time; 0 where all have one. */
  readonly concurrency: number;
  readonly requests: readonly PlannedRequest[];
}

export interface DemoOptions {
  readonly seed: number;
  readonly phaseMs: number;
  /** Chat arrivals a second. */
  readonly chatRate: number;
  /** A long prompt falls among the chats this often. */
  readonly longPromptEveryMs: number;
  readonly longPromptWords: number;
  readonly floodConcurrency: number;
  readonly floodPromptWords: number;
}

/** Two phases that want different paths, and back: chats under an ITL objective with long prompts falling in; a flood. */
export function demoPhases(options: DemoOptions): Phase[] {
  const random = generator(options.seed);
  return [chats(options, random), flood(options, random), chats(options, random)];
}

/** Short streamed answers at random times; now and then a long prompt whose prefill stands in their way. */
export function chats(options: DemoOptions, random: () => number): Phase {
  const requests: PlannedRequest[] = [];
  let atMs = 0;
  let count = 0;
  for (;;) {
    // Poisson arrivals: the gaps are exponential.
    atMs += (-Math.log(1 - random()) * 1000) / options.chatRate;
    if (atMs >= options.phaseMs) break;
    count += 1;
    requests.push({
      atMs,
      prompt: words(12 + Math.floor(random() * 20), random),
      maxTokens: 32 + Math.floor(random() * 32),
      isStreamed: true,
      session: `chat-${count % 24}`,
    });
  }
  for (let at = options.longPromptEveryMs / 2; at < options.phaseMs; at += options.longPromptEveryMs) {
    requests.push({
      atMs: at,
      prompt: words(options.longPromptWords, random),
      maxTokens: 8,
      isStreamed: true,
      session: 'reports',
    });
  }
  requests.sort((a, b) => (a.atMs ?? 0) - (b.atMs ?? 0));
  return { name: 'chats', durationMs: options.phaseMs, concurrency: 0, requests };
}

/** Prompts with short answers as fast as they are taken: nobody waits for a single token. */
export function flood(options: DemoOptions, random: () => number): Phase {
  const most = Math.ceil(options.phaseMs / 5);
  const requests = Array.from({ length: Math.min(most, 20_000) }, (_, index) => ({
    atMs: null,
    prompt: words(Math.round(options.floodPromptWords * (0.6 + 0.8 * random())), random),
    maxTokens: 4 + Math.floor(random() * 4),
    isStreamed: false,
    session: `flood-${index}`,
  }));
  return { name: 'flood', durationMs: options.phaseMs, concurrency: options.floodConcurrency, requests };
}

const vocabulary = (
  'the a little big old red blue warm cold quiet dog cat bird boat hill tree river house garden rain sun moon star ' +
  'girl boy man woman friend saw found took made went came played looked asked told ran walked and then because so but ' +
  'with under over near into after before one two three day night morning story song ball book bread apple'
).split(' ');

/** A prompt of this many common words; starts differ, so that no two share a cached prefix by chance. */
export function words(count: number, random: () => number): string {
  return Array.from(
    { length: count },
    () => vocabulary[Math.floor(random() * vocabulary.length)] ?? 'the',
  ).join(' ');
}

/** A small seeded generator (mulberry32), uniform in [0, 1). */
export function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
