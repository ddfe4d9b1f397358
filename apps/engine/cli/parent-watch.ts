/**
 * How a process of ours learns that it should end: SIGTERM, or its stdin ending because the supervisor is gone. Used by
 * gateway, worker and optimizer; Ctrl-C is the supervisor's alone.
 */

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
