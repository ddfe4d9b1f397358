/**
 * From the measured windows of adaptive.ts to its figures: the path of each phase is chosen on some rounds and judged on
 * others. Ratios are paired by phase and round; a round's is their geometric mean, and intervals redraw the rounds. Pure.
 */
import type { Figure } from '../figure.ts';
import { type RatioInterval, ratioInterval } from '../kernels/ratio-interval.ts';
import { LEAST_SHARE } from './adaptive-plan.ts';
import type { Served } from './adaptive-window.ts';

export interface Window extends Omit<Served, 'steps'> {
  readonly seed: number;
  readonly phase: string;
  /** A static path's name, or one of `againArm` and `switchedArm`. */
  readonly arm: string;
}

/** The default path a second time: what chance does. */
export const againArm = 'balanced again';
/** One engine that switches to the chosen path at each border. */
export const switchedArm = 'switched live';

/** Tokens a second by phase and seed; windows that served nothing count as a tenth of the best. */
export class Rates {
  readonly #windows: readonly Window[];
  readonly phases: readonly string[];

  constructor(windows: readonly Window[]) {
    this.#windows = windows;
    this.phases = [...new Set(windows.map(({ phase }) => phase))];
  }

  rate(phase: string, seed: number, arm: string): number {
    const same = this.#windows.filter((window) => window.phase === phase && window.seed === seed);
    const best = Math.max(...same.map(({ tokensPerSecond }) => tokensPerSecond));
    // Where no path served anything in time, none is better than another.
    if (best === 0) return 1;
    const own = same.find((window) => window.arm === arm)?.tokensPerSecond ?? Number.NaN;
    return Math.max(own, LEAST_SHARE * best);
  }

  mean(phase: string, seeds: readonly number[], arm: string): number {
    return geometricMean(seeds.map((seed) => this.rate(phase, seed, arm)));
  }

  /** The path with the highest mean rate in each phase, over these rounds. */
  bestByPhase(seeds: readonly number[], arms: readonly string[]): ReadonlyMap<string, string> {
    return new Map(this.phases.map((phase) => [phase, highest(arms, (arm) => this.mean(phase, seeds, arm))]));
  }

  /** The one path that is best for all phases together, over these rounds. */
  bestForAll(seeds: readonly number[], arms: readonly string[]): string {
    return highest(arms, (arm) => geometricMean(this.phases.map((phase) => this.mean(phase, seeds, arm))));
  }

  /** `armOf` names the arm of each phase. One ratio a round. */
  ratios(seeds: readonly number[], armOf: ArmOf, over: ArmOf): number[] {
    return seeds.map((seed) =>
      geometricMean(
        this.phases.map(
          (phase) => this.rate(phase, seed, armOf(phase)) / this.rate(phase, seed, over(phase)),
        ),
      ),
    );
  }

  /** Tokens of the whole trace, phases weighing by what is served in `durationMs` each. */
  traceRatios(
    seeds: readonly number[],
    armOf: ArmOf,
    over: ArmOf,
    durationMs: (phase: string) => number,
  ): number[] {
    const tokens = (seed: number, arm: ArmOf): number =>
      this.phases.reduce((sum, phase) => sum + this.rate(phase, seed, arm(phase)) * durationMs(phase), 0);
    return seeds.map((seed) => tokens(seed, armOf) / tokens(seed, over));
  }
}

type ArmOf = (phase: string) => string;

export interface Judged {
  readonly label: string;
  readonly windows: readonly Window[];
  readonly choosingSeeds: readonly number[];
  readonly measuredSeeds: readonly number[];
  readonly staticArms: readonly string[];
  readonly defaultArm: string;
  readonly durationMs: (phase: string) => number;
}

export function adaptiveFigures(judged: Judged): Figure[] {
  const { label, staticArms, defaultArm, choosingSeeds, measuredSeeds: seeds, durationMs } = judged;
  const rates = new Rates(judged.windows);
  const chosen = rates.bestByPhase(choosingSeeds, staticArms);
  const hindsight = rates.bestByPhase(seeds, staticArms);
  const best = rates.bestForAll(seeds, staticArms);
  const always =
    (arm: string): ArmOf =>
    () =>
      arm;
  const perPhase: ArmOf = (phase) => chosen.get(phase) ?? defaultArm;
  const inHindsight: ArmOf = (phase) => hindsight.get(phase) ?? defaultArm;
  const compare = (name: string, arm: ArmOf, over: ArmOf): Figure =>
    inFigure(`${label}, ${name}`, ratioInterval(rates.ratios(seeds, arm, over)));
  const compareTrace = (name: string, arm: ArmOf, over: ArmOf): Figure =>
    inFigure(
      `${label}, ${name}, tokens of the whole trace`,
      ratioInterval(rates.traceRatios(seeds, arm, over, durationMs)),
    );
  return [
    compare('chance: the default path over itself', always(againArm), always(defaultArm)),
    ...staticArms
      .filter((arm) => arm !== defaultArm)
      .map((arm) => compare(`${arm} over ${defaultArm}`, always(arm), always(defaultArm))),
    compare(`path per phase, chosen on other seeds, over ${defaultArm}`, perPhase, always(defaultArm)),
    compare(`path per phase over the best static path in hindsight (${best})`, perPhase, always(best)),
    compareTrace(`path per phase over ${best}`, perPhase, always(best)),
    compare(`switched live over ${defaultArm}`, always(switchedArm), always(defaultArm)),
    compare(`switched live over ${best}`, always(switchedArm), always(best)),
    compareTrace(`switched live over ${best}`, always(switchedArm), always(best)),
    compare('switched live over path per phase: what the switches cost', always(switchedArm), perPhase),
    compare(
      `path per phase, chosen on these seeds (flattered by chance), over ${best}`,
      inHindsight,
      always(best),
    ),
  ];
}

/** Means by phase and arm for people; the chosen one of a phase is marked. */
export function adaptiveTable({ windows, choosingSeeds, measuredSeeds, staticArms }: Judged): string[][] {
  const rates = new Rates(windows);
  const chosen = rates.bestByPhase(choosingSeeds, staticArms);
  const arms = [...staticArms, againArm, switchedArm];
  return [
    ['tok/s', ...arms],
    ...rates.phases.map((phase) => [
      phase,
      ...arms.map(
        (arm) =>
          `${rates.mean(phase, measuredSeeds, arm).toFixed(0)}${chosen.get(phase) === arm ? ' *' : ''}`,
      ),
    ]),
  ];
}

const inFigure = (name: string, { mean, low, high, count }: RatioInterval): Figure => ({
  figure: name,
  goal: '',
  measured: `${mean.toFixed(3)}x`,
  interval: `${low.toFixed(3)} to ${high.toFixed(3)}, ${count} rounds`,
  isMet: null,
});

const geometricMean = (values: readonly number[]): number =>
  Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);

const highest = (arms: readonly string[], rated: (arm: string) => number): string =>
  arms.reduce((best, arm) => (rated(arm) > rated(best) ? arm : best), arms[0] ?? '');
