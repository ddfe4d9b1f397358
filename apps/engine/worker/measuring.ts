/**
 * A measurement of kernels, call by call of the device: what a worker does at once before it serves, and between steps while
 * nothing runs when it serves. Made by measured-tunings.ts and measured-attention.ts; owned by cpu-device.ts.
 */

/** Yields between two calls of the device; steps may run there. */
export type Measuring<Chosen> = AsyncGenerator<undefined, Chosen, undefined>;

export interface MeasuringLimit {
  /** Of all calls together. */
  readonly limitMs: number;
  /** Of one: a step that becomes due meanwhile waits for it. */
  readonly mostCallMs: number;
}

/** All of it at once. */
export async function measureNow<Chosen>(measuring: Measuring<Chosen>): Promise<Chosen> {
  for (;;) {
    const { done, value } = await measuring.next();
    if (done === true) return value;
  }
}
