/**
 * How a process of ours learns that it should end: SIGTERM, or its stdin ending because the supervisor is gone; and how it
 * tells the supervisor that it lives. Used by gateway, worker and optimizer; Ctrl-C is the supervisor's alone.
 */

/** The one message of a watched part to its supervisor. */
export const ALIVE = 'alive';
const ALIVE_MS = 500;

/** From now on, for as long as the event loop turns; the supervisor replaces a process that hangs. */
export function keepSayingAlive(): void {
  if (process.send === undefined) return;
  const say = () => {
    // The callback takes the error of a supervisor that is gone: stdin tells of that.
    if (process.connected) process.send?.(ALIVE, undefined, undefined, () => {});
  };
  say();
  setInterval(say, ALIVE_MS).unref();
  process.channel?.unref();
}

/** @param onEnd is called once with the reason */
export function watchParent(onEnd: (reason: 'asked' | 'parentGone') => void): void {
  let isTold = false;
  const tell = (reason: 'asked' | 'parentGone') => {
    if (isTold) return;
    isTold = true;
    onEnd(reason);
  };
  process.on('SIGTERM', () => tell('asked'));
  process.on('SIGINT', () => {
    // Standing alone at a terminal there is no supervisor to translate it.
    if (process.stdin.isTTY) tell('asked');
  });
  if (!process.stdin.isTTY) {
    process.stdin.on('end', () => tell('parentGone'));
    process.stdin.on('error', () => tell('parentGone'));
    process.stdin.resume();
  }
}
