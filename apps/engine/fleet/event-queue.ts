/**
 * A bounded queue that one side pushes into and one side iterates: how events of a sequence and step rows reach their
 * reader. Used by worker-fleet.ts. Refuses to grow beyond its bound: the reader then gets an error instead of memory.
 */

export interface EventQueue<T> extends AsyncIterable<T> {
  push(event: T): void;
  /** No more events; the reader ends after what is queued, with the error where there is one. */
  end(error?: Error): void;
}

/** @param onLeave is called once when the reader leaves before the end */
export function eventQueue<T>(mostQueued: number, onLeave: () => void): EventQueue<T> {
  const queued: T[] = [];
  let isEnded = false;
  let failure: Error | null = null;
  let wake: (() => void) | null = null;

  const signal = (): void => {
    wake?.();
    wake = null;
  };

  async function* read(): AsyncGenerator<T> {
    let isFinished = false;
    try {
      for (;;) {
        while (queued.length > 0) yield queued.shift() as T;
        if (isEnded) {
          isFinished = true;
          if (failure) throw failure;
          return;
        }
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    } finally {
      if (!isFinished) onLeave();
    }
  }

  return {
    push(event) {
      if (isEnded) return;
      if (queued.length >= mostQueued) {
        isEnded = true;
        failure = new Error(`the reader is more than ${mostQueued} events behind`);
        onLeave();
      } else {
        queued.push(event);
      }
      signal();
    },
    end(error) {
      if (isEnded) return;
      isEnded = true;
      failure = error ?? null;
      signal();
    },
    [Symbol.asyncIterator]: read,
  };
}
