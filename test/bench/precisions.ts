/** Precisions of the GGUF files that peers are compared on, and the flag that leaves some out. */
import { ConfigError } from '../../apps/engine/config/config-error.ts';

const precisions = ['Q8_0', 'Q4_0'] as const;
export type Precision = (typeof precisions)[number];

/** All of them where nothing is said. @throws ConfigError */
export function precisionsOf(flag: string | undefined): readonly Precision[] {
  const chosen = precisions.filter((one) => flag === undefined || flag === one);
  if (chosen.length === 0) throw new ConfigError(`--precision is one of ${precisions.join(', ')}.`);
  return chosen;
}
