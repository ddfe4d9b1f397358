/**
 * When a supervisor should end, and when at once: signals, and the death of whoever started it. Used by start.ts and
 * worker.ts.
 */

/** Resolves on SIGINT, SIGTERM or SIGHUP, or when the process that started us is gone. */
export function endOfSupervisor(): Promise<void> {
  const parent = process.ppid;
  return new Promise((resolve) => {
    const watch = setInterval(() => {
      if (process.ppid !== parent) resolve();
    }, 300);
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => resolve());
    watch.unref();
  });
}

/** A signal that comes well after the first: npm repeats the first one, which is not impatience. */
export function secondSignal(): Promise<void> {
  const firstAt = performance.now();
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.on(signal, () => {
        if (performance.now() - firstAt > 2000) resolve();
      });
    }
  });
}
