/**
 * The execution paths worth asking about from where a worker stands: a trust region of two settings, one risky change at
 * a time (algorithms.md f), without what a canary has shown to fail. Called by propose.ts's callers. Pure.
 */
import { worthTrying } from '@variator/kernels/catalogue';
import {
  diffPaths,
  type Envelope,
  type ExecutionPath,
  type PathChange,
  pathFaults,
  pathId,
} from '@variator/kernels/execution-path';

type Setting = keyof ExecutionPath;

interface Choices {
  /** It decides bits or native code: such a change comes alone among its kind. */
  readonly isRisky: boolean;
  valuesIn(envelope: Envelope, draftTokenCounts: readonly number[]): readonly (string | number)[];
}

const doublings = (least: number, most: number): number[] => {
  const values: number[] = [];
  for (let value = least; value <= most; value *= 2) values.push(value);
  return values;
};

/** One entry a setting: a path that gains one does not compile before it is here. */
const CHOICES: Readonly<Record<Setting, Choices>> = {
  linear: { isRisky: true, valuesIn: ({ linearVariants }) => worthTrying(linearVariants) },
  attention: { isRisky: true, valuesIn: ({ attentionVariants }) => attentionVariants },
  threadCount: { isRisky: false, valuesIn: ({ threadCount }) => [...doublings(1, threadCount), threadCount] },
  tokenBudget: {
    isRisky: false,
    valuesIn: ({ maxTokenBudget }) => [...doublings(16, maxTokenBudget), maxTokenBudget],
  },
  maxRunningCount: {
    isRisky: false,
    valuesIn: ({ maxRunningCount }) => [1, ...doublings(4, maxRunningCount), maxRunningCount],
  },
  // Not a risk: guesses change no token.
  draftTokenCount: { isRisky: false, valuesIn: (_, draftTokenCounts) => draftTokenCounts },
  // Measured on the worker itself when it started; what else there is was slower then.
  tiles: { isRisky: false, valuesIn: () => [] },
  // Decides bits, and every value needs a fit of its own before a replay can tell them apart: chosen by people.
  splitTokens: { isRisky: true, valuesIn: () => [] },
};
const SETTINGS = Object.keys(CHOICES) as Setting[];
const MOST_CHANGES = 2;

export const isRisky = ({ setting }: PathChange): boolean => CHOICES[setting].isRisky;

/**
 * Legal paths other than the incumbent, those with one change first.
 * @param draftTokenCounts worth asking about; none where nobody knows what guesses would be worth (see drawn-guesses.ts)
 */
export function candidatePaths(
  incumbent: ExecutionPath,
  envelope: Envelope,
  faulty: readonly (readonly PathChange[])[] = [],
  draftTokenCounts: readonly number[] = [],
): ExecutionPath[] {
  const single = SETTINGS.flatMap((setting) => variations(incumbent, setting, envelope, draftTokenCounts));
  const double = single.flatMap((path) => {
    const changed = diffPaths(incumbent, path)[0]?.setting;
    // Each pair of settings once, the later one second.
    const later = SETTINGS.slice(changed === undefined ? 0 : SETTINGS.indexOf(changed) + 1);
    return later.flatMap((setting) => variations(path, setting, envelope, draftTokenCounts));
  });
  const seen = new Set([pathId(incumbent)]);
  return [...single, ...double].filter((path) => {
    const id = pathId(path);
    if (seen.has(id)) return false;
    seen.add(id);
    const changes = diffPaths(incumbent, path);
    return (
      changes.length <= MOST_CHANGES &&
      changes.filter(isRisky).length <= 1 &&
      pathFaults(path, envelope).length === 0 &&
      !faulty.some((region) => liesIn(path, region))
    );
  });
}

/**
 * What failed once is not tried again, nor what goes further the same way: a path lies in the region of these changes when
 * it has each of their values, or for a number one at least as far from where they started.
 */
export function liesIn(path: ExecutionPath, region: readonly PathChange[]): boolean {
  if (region.length === 0) return false;
  return region.every(({ setting, from, to }) => {
    const value = path[setting];
    if (typeof value !== 'number' || typeof to !== 'number' || typeof from !== 'number') return value === to;
    return to > from ? value >= to : value <= to;
  });
}

function variations(
  path: ExecutionPath,
  setting: Setting,
  envelope: Envelope,
  draftTokenCounts: readonly number[],
): ExecutionPath[] {
  const values = new Set(CHOICES[setting].valuesIn(envelope, draftTokenCounts));
  values.delete(path[setting]);
  return [...values].map((value) => ({ ...path, [setting]: value }));
}
