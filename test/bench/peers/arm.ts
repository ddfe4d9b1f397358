/** One of those a bench compares over requests: an engine that serves, with a fixed thread count, and how to load it. */
import { type Endpoint, percentiles, send } from '../../../apps/engine/cli/drive.ts';
import { words } from '../../../apps/engine/cli/workload.ts';

/** What became of a request. */
export interface Sent {
  readonly completionTokenCount: number;
  readonly ttftMs: number | null;
  /** '' when it was answered whole. */
  readonly fault: string;
}

export interface Arm {
  readonly threadCount: number;
  send(prompt: string, tokenCount: number): Promise<Sent>;
  stop(): Promise<void>;
}

export interface Load {
  readonly tokensPerSecond: number;
  readonly ttftMs: number;
}

/** About 110 tokens with what chat templates add. */
const PROMPT_WORDS = 75;
const NEW_TOKENS = 64;

let sentCount = 0;

/** Chat completions, streamed. */
export function overHttp(endpoint: Endpoint): Arm['send'] {
  const { signal } = new AbortController();
  return (prompt, maxTokens) => {
    sentCount += 1;
    return send(endpoint, { atMs: 0, prompt, maxTokens, isStreamed: true, session: `s${sentCount}` }, signal);
  };
}

/** `count` requests, `atOnce` of them under way. @throws Error when one failed or answered short */
export async function load(
  arm: Pick<Arm, 'send'>,
  atOnce: number,
  count: number,
  random: () => number,
): Promise<Load> {
  const sent: Sent[] = [];
  let launched = 0;
  const startedAt = performance.now();
  const lane = async () => {
    while (launched < count) {
      launched += 1;
      sent.push(await arm.send(words(PROMPT_WORDS, random), NEW_TOKENS));
    }
  };
  await Promise.all(Array.from({ length: atOnce }, lane));
  const seconds = (performance.now() - startedAt) / 1000;
  for (const { fault, completionTokenCount } of sent) {
    if (fault !== '') throw new Error(`A request failed: ${fault}`);
    if (completionTokenCount !== NEW_TOKENS)
      throw new Error(`A request gave ${completionTokenCount} tokens.`);
  }
  return {
    tokensPerSecond: (sent.length * NEW_TOKENS) / seconds,
    ttftMs: percentiles(sent.flatMap(({ ttftMs }) => ttftMs ?? []))?.p50 ?? Number.NaN,
  };
}
