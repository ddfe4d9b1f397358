/** A bench of several parts: runs those named, or all, one after the other, and joins their figures. */
import { ConfigError } from '../../apps/engine/config/config-error.ts';
import type { Figure } from './figure.ts';

export type Part = () => Promise<readonly Figure[]>;
/** Loaded when it runs. */
export type Parts = Readonly<Record<string, () => Promise<Part>>>;

/** @throws ConfigError for a part that is not there */
export async function runParts(
  bench: string,
  parts: Parts,
  names: readonly string[],
): Promise<readonly Figure[]> {
  const unknown = names.find((name) => !Object.hasOwn(parts, name));
  if (unknown !== undefined) {
    throw new ConfigError(`${bench} has no part "${unknown}"; there are ${Object.keys(parts).join(', ')}.`);
  }
  const figures: Figure[] = [];
  for (const name of names.length > 0 ? names : Object.keys(parts)) {
    console.log(`  ${name}`);
    const load = parts[name];
    if (load !== undefined) figures.push(...(await (await load())()));
  }
  return figures;
}
