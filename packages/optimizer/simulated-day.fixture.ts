/**
 * The score of a simulated day of five regimes, two of which come again: device ms per good request over what the best path
 * of each phase, known in hindsight and switched to at once, would have cost on the same requests. Used by the bench's part
 * `day`; what is played is in simulated-day-play.fixture.ts.
 */
import { type ExecutionPath, pathFaults, pathId } from '@variator/kernels/execution-path';
import { type Arrival, replay } from './replay.ts';
import { logAttainmentOf } from './search-paths.ts';
import { play } from './simulated-day-play.fixture.ts';
import { graceMinutes, type Phase, trafficOf, WHOLE_DAY } from './simulated-day-traffic.fixture.ts';
import {
  DayWorker,
  envelope,
  KERNELS,
  MINUTE,
  type Reality,
  realityOf,
  startPath,
} from './simulated-day-worker.fixture.ts';

export interface PhaseScore {
  readonly name: string;
  readonly isRecurring: boolean;
  /** Device ms per good request outside the grace, over the oracle's. */
  readonly ratio: number;
  /** The same had the path of the day's start stayed. */
  readonly ratioOfStart: number;
  readonly switchCount: number;
  readonly canaryCount: number;
  /** Minutes from the phase's start to its last switch; null where there was none. */
  readonly lastSwitchMinute: number | null;
}

export interface DayScore {
  readonly ratio: number;
  readonly ratioOfStart: number;
  /** Promotions to a path that costs more than 1 % more, in this phase, than the one it replaced. */
  readonly falseSwitchCount: number;
  /** Promotions to a path that misses the ITL objective where the one it replaced kept it. */
  readonly violatingCount: number;
  readonly phases: readonly PhaseScore[];
}

/** @param phases of another day than the whole one: some of them alone, to find a cause */
export function playDay(
  seed: number,
  log: (line: string) => void = () => undefined,
  phases: readonly Phase[] = WHOLE_DAY,
): DayScore {
  const reality = realityOf(seed);
  const { arrivals, endsAt } = trafficOf(1000 + seed, phases);
  const starts = phases.map((_, index) =>
    phases.slice(0, index).reduce((sum, { minutes }) => sum + minutes, 0),
  );
  const hindsight = phases.map(({ minutes }, index) =>
    bestInHindsight(reality, arrivals, ((starts[index] ?? 0) + minutes / 2) * MINUTE),
  );
  const played = play(reality, arrivals, endsAt, seed, log);
  const oracle = new DayWorker(arrivals, reality, startPath, seed);
  phases.forEach((of, index) => {
    oracle.switchTo(hindsight[index]?.best ?? startPath);
    oracle.runUntil(((starts[index] ?? 0) + of.minutes) * MINUTE);
  });
  const still = new DayWorker(arrivals, reality, startPath, seed);
  still.runUntil(endsAt);

  const costIn = (worker: DayWorker, which: readonly number[]): number => {
    let deviceMs = 0;
    let goodCount = 0;
    for (const index of which) {
      const of = phases[index];
      if (of === undefined) continue;
      const from = (starts[index] ?? 0) + graceMinutes(of);
      for (let minute = from; minute < (starts[index] ?? 0) + of.minutes; minute += 1) {
        deviceMs += worker.deviceMs[minute] ?? 0;
        goodCount += worker.goodCount[minute] ?? 0;
      }
    }
    return deviceMs / Math.max(1, goodCount);
  };
  const every = phases.map((_, index) => index);
  const phaseOf = (minute: number): number => starts.findLastIndex((start) => start <= minute);
  const judged = played.switches.map(({ minute, from, to }) => {
    const costs = hindsight[phaseOf(minute)];
    return {
      minute,
      rise: (costs?.costOf(to) ?? 0) - (costs?.costOf(from) ?? 0),
      breaks: (costs?.keeps(from) ?? true) && !(costs?.keeps(to) ?? true),
    };
  });
  return {
    ratio: costIn(played.worker, every) / costIn(oracle, every),
    ratioOfStart: costIn(still, every) / costIn(oracle, every),
    falseSwitchCount: judged.filter(({ rise }) => rise > 0.01).length,
    violatingCount: judged.filter(({ breaks }) => breaks).length,
    phases: phases.map(({ kind: of, isRecurring }, index) => {
      const own = played.switches.filter(({ minute }) => phaseOf(minute) === index);
      const last = own.at(-1);
      return {
        name: of.name,
        isRecurring,
        ratio: costIn(played.worker, [index]) / costIn(oracle, [index]),
        ratioOfStart: costIn(still, [index]) / costIn(oracle, [index]),
        switchCount: own.length,
        canaryCount: played.canaries.filter((minute) => phaseOf(minute) === index).length,
        lastSwitchMinute: last === undefined ? null : last.minute - (starts[index] ?? 0),
      };
    }),
  };
}

interface Hindsight {
  readonly best: ExecutionPath;
  /** log device ms per good request in this phase. */
  readonly costOf: (path: ExecutionPath) => number;
  readonly keeps: (path: ExecutionPath) => boolean;
}

/** Every path on a minute of the phase, the better ones on five, on the device as it really is. */
function bestInHindsight(reality: Reality, arrivals: readonly Arrival[], middle: number): Hindsight {
  const known = new Map<string, { cost: number; keeps: boolean }>();
  const ask = (path: ExecutionPath, minutes: number): { cost: number; keeps: boolean } => {
    const key = `${pathId(path)} ${minutes}`;
    const before = known.get(key);
    if (before !== undefined) return before;
    const span = arrivals.filter(({ at }) => at >= middle && at < middle + minutes * MINUTE);
    const real = replay({
      ...{ arrivals: span, path, fit: reality.fitOf(path), device: reality.deviceOf(path), envelope },
      ...{ deviceUsdPerHour: 1, seed: 1, noise: 0.05 },
    });
    const answer = {
      cost: Math.log(real.outcome.deviceMsPerRequest) - logAttainmentOf(real),
      keeps: real.lateGapShare <= 0.01,
    };
    known.set(key, answer);
    return answer;
  };
  const short = allPaths()
    .map((path) => ({ path, ...ask(path, 1.5) }))
    .sort((a, b) => Number(b.keeps) - Number(a.keeps) || a.cost - b.cost)
    .slice(0, 10)
    .map(({ path }) => ({ path, ...ask(path, 6) }))
    .filter(({ keeps }) => keeps)
    .sort((a, b) => a.cost - b.cost);
  return {
    best: short[0]?.path ?? startPath,
    costOf: (path) => ask(path, 6).cost,
    keeps: (path) => ask(path, 6).keeps,
  };
}

function allPaths(): ExecutionPath[] {
  return KERNELS.flatMap(([linear]) =>
    [16, 32, 64, 128, 256, 512].flatMap((tokenBudget) =>
      [1, 4, 8, 16, 32].map((maxRunningCount) => ({ ...startPath, linear, tokenBudget, maxRunningCount })),
    ),
  ).filter((path) => pathFaults(path, envelope).length === 0);
}
