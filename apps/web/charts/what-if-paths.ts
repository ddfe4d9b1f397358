/**
 * The paths that a proposal was chosen from, as its pictures draw them: each with its figures, which one runs now and which is
 * proposed, and those that differ from the present one in one same setting, in its order. Pure; called by the what-if.
 */
import type { MetricName, PathSetting, Proposal } from '../api.ts';

type Considered = NonNullable<Proposal['evidence']['considered']>[number];

export interface Figure {
  readonly value: number;
  readonly low: number;
  readonly high: number;
  /** False where the path was replayed once and not drawn with error. */
  readonly hasInterval: boolean;
}

export interface WhatIfPath {
  readonly role: 'now' | 'proposed' | 'other';
  /** From the present path; none for itself. */
  readonly changes: Considered['changes'];
  readonly keepsObjectives: boolean;
  readonly figureOf: (metric: MetricName) => Figure | null;
}

export function whatIfPaths({ changes, evidence }: Pick<Proposal, 'changes' | 'evidence'>): WhatIfPath[] {
  const proposed = nameOf(changes);
  return (evidence.considered ?? []).map((considered): WhatIfPath => {
    const name = nameOf(considered.changes);
    return {
      role: name === '' ? 'now' : name === proposed ? 'proposed' : 'other',
      changes: considered.changes,
      keepsObjectives: considered.keepsObjectives,
      figureOf: (metric) => {
        const found = considered.metrics.find((one) => one.metric === metric);
        if (found === undefined) return null;
        const { value, interval } = found;
        return {
          value,
          low: interval?.low ?? value,
          high: interval?.high ?? value,
          hasInterval: interval !== null,
        };
      },
    };
  });
}

export interface SettingPoint {
  readonly at: number;
  readonly path: WhatIfPath;
}

export interface SettingCurve {
  readonly setting: PathSetting;
  readonly points: readonly SettingPoint[];
}

const numericSettings = [
  'tokenBudget',
  'maxRunningCount',
  'threadCount',
  'draftTokenCount',
] as const satisfies readonly PathSetting[];

/**
 * The setting along which most paths lie that are otherwise as proposed, in its order; null below three of them. The
 * present path is among them where it differs in this setting alone.
 */
export function settingCurve({
  from,
  changes,
  evidence,
}: Pick<Proposal, 'changes' | 'evidence' | 'from'>): SettingCurve | null {
  const settled = (made: Considered['changes']): Readonly<Record<PathSetting, string | number>> => ({
    ...from,
    ...Object.fromEntries(made.map(({ setting, to }) => [setting, to])),
  });
  const proposed = settled(changes);
  const paths = whatIfPaths({ changes, evidence });
  const curves = numericSettings.map((setting): SettingCurve => {
    const points = paths.flatMap((path): SettingPoint[] => {
      const own = settled(path.changes);
      const at = own[setting];
      const isAlong =
        nameOfSettings({ ...own, [setting]: 0 }) === nameOfSettings({ ...proposed, [setting]: 0 });
      return isAlong && typeof at === 'number' ? [{ at, path }] : [];
    });
    return { setting, points: points.sort((a, b) => a.at - b.at) };
  });
  const isChanged = ({ setting }: SettingCurve): boolean =>
    changes.some((change) => change.setting === setting);
  const [longest] = curves.sort(
    (a, b) => b.points.length - a.points.length || Number(isChanged(b)) - Number(isChanged(a)),
  );
  return longest === undefined || longest.points.length < 3 ? null : longest;
}

const nameOfSettings = (settings: Readonly<Record<PathSetting, string | number>>): string =>
  Object.entries(settings)
    .map(([setting, value]) => `${setting}=${value}`)
    .sort()
    .join(' ');

const nameOf = (changes: Considered['changes']): string =>
  changes
    .map(({ setting, to }) => `${setting}=${to}`)
    .sort()
    .join(' ');
