/** Waits for what the product shows in its own time. Used by the end-to-end tests, which never sleep and then assert. */
import { setTimeout as pause } from 'node:timers/promises';

/**
 * The first answer that is neither null nor undefined nor false.
 * @throws Error naming what was waited for, with the last fault, when the limit has passed
 */
export async function waitUntil<Answer>(
  what: string,
  limitMs: number,
  ask: () => Promise<Answer | null | undefined | false>,
): Promise<Answer> {
  const startedAt = performance.now();
  let fault = '';
  while (performance.now() - startedAt < limitMs) {
    try {
      const answer = await ask();
      if (answer !== null && answer !== undefined && answer !== false) return answer;
      fault = '';
    } catch (error) {
      fault = ` (${error instanceof Error ? error.message : String(error)})`;
    }
    await pause(150);
  }
  throw new Error(`Waited ${Math.round(limitMs / 1000)} s in vain: ${what}${fault}`);
}
