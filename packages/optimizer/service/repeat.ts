/**
 * Runs a round again and again until the signal aborts: at its pace while it succeeds, with growing pauses while it fails.
 * Used by main.ts for every round. What fails is said once, and once more when it is over.
 */
import { setTimeout as pause } from 'node:timers/promises';

const MOST_PAUSE_MS = 30_000;

/** Says each fault of the outside world once, when it lasts. One for all rounds: they share what they depend on. */
export interface Faults {
  failed(round: string, error: unknown, now: number): void;
  succeeded(round: string): void;
}

/** At a start the parts come up one after the other; that is no fault. */
const SAID_AFTER_MS = 3000;

export function createFaults(log: (line: string) => void): Faults {
  const since = new Map<string, number>();
  const said = new Set<string>();
  return {
    failed(round, error, now) {
      const failedAt = since.get(round) ?? now;
      since.set(round, failedAt);
      const message = sentenceOf(error);
      if (now - failedAt < SAID_AFTER_MS || said.has(message)) return;
      said.add(message);
      log(`waiting: ${message}`);
    },
    succeeded(round) {
      if (!since.delete(round) || since.size > 0 || said.size === 0) return;
      said.clear();
      log('all is reachable again');
    },
  };
}

export async function repeat(
  round: string,
  everyMs: number,
  work: (now: number) => Promise<void>,
  faults: Faults,
  signal: AbortSignal,
): Promise<void> {
  let pauseMs = everyMs;
  while (!signal.aborted) {
    const now = Date.now();
    try {
      await work(now);
      faults.succeeded(round);
      pauseMs = everyMs;
    } catch (error) {
      if (signal.aborted) return;
      faults.failed(round, error, now);
      pauseMs = Math.min(Math.max(MOST_PAUSE_MS, everyMs), pauseMs * 2);
    }
    await pause(pauseMs, undefined, { signal }).catch(() => {
      // Aborted: the loop's condition ends it.
    });
  }
}

/** The first line, without addresses that change from one try to the next. */
function sentenceOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause.message : '';
  const line = (message === 'fetch failed' ? `the gateway does not answer (${cause})` : message).split(
    '\n',
  )[0];
  return (line ?? '').slice(0, 300);
}
