/**
 * When a line that got no answer is tried again. Pure. What the server could not do now (429, 503) is tried until the
 * batch's window ends; a line whose worker was lost or that the server failed at is tried a few times only, because it
 * may be the reason.
 */
export interface RefusedLine {
  readonly status: number;
  readonly code: string;
  /** What the refusal said; null where it said nothing. */
  readonly retryAfterMs: number | null;
}

const MOST_FAILED_ATTEMPTS = 4;
const FIRST_PAUSE_MS = 500;
const MOST_PAUSE_MS = 30_000;

/** True where the attempt itself may be at fault, so that it counts. */
export const isFailedAttempt = (refused: RefusedLine): boolean => refused.code === 'worker_lost';

/**
 * @param attemptCount attempts so far, this one included
 * @param failedAttemptCount those of them that count
 * @returns null where trying again does not help
 */
export function retryPauseMs(
  refused: RefusedLine,
  attemptCount: number,
  failedAttemptCount: number,
): number | null {
  if (refused.status !== 429 && refused.status !== 503) return null;
  if (failedAttemptCount >= MOST_FAILED_ATTEMPTS) return null;
  const doubled = FIRST_PAUSE_MS * 2 ** Math.min(attemptCount - 1, 16);
  return Math.min(MOST_PAUSE_MS, Math.max(doubled, refused.retryAfterMs ?? 0));
}
