/**
 * A small seeded generator, so that every replay, bootstrap and block plan can be repeated. Used by replay, propose,
 * canary-judge and their tests. Not for secrets.
 */
export interface SeededRandom {
  /** Uniform in [0, 1). */
  uniform(): number;
  /** Standard normal. */
  normal(): number;
  /** A whole number from 0 to `count` - 1. */
  below(count: number): number;
}

/** No normal is further from 0: the uniform is at least 2^-32. */
export const MOST_NORMAL = Math.sqrt(64 * Math.LN2);

/** Mulberry32 (Tommy Ettinger's 32-bit generator); normals by Box and Muller. */
export function seededRandom(seed: number): SeededRandom {
  let state = seed >>> 0;
  const uniform = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
  return {
    uniform,
    normal: () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()),
    below: (count) => Math.floor(uniform() * count),
  };
}
