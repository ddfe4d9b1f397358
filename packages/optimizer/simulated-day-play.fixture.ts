/**
 * A simulated day as it goes: workload windows into the regime detector, a search when a regime is settled, a canary by the
 * real judge and reducer for each proposal, and what it taught into the memory. Used by simulated-day.fixture.ts.
 */
import { type ExecutionPath, pathId } from '@variator/kernels/execution-path';
import type { StepFeatures } from '@variator/scheduler/step-time';
import { costsAtEqualLoad, freezePrices, type JudgedStep, judgePair, planBlocks } from './canary-judge.ts';
import { candidatePaths } from './candidate-paths.ts';
import { itlErrorsOf, lateGapsOfSides, realisedOf, type TriedPath, underLivingIds } from './path-memory.ts';
import { approvedLogCostOf, type ProposalDraft } from './proposal.ts';
import { propose } from './propose.ts';
import { weightedQuantile } from './quantile.ts';
import { advance as advanceRegime, NO_REGIME, type RegimeState } from './regime.ts';
import { livesOnAs } from './regime-library.ts';
import type { Arrival } from './replay.ts';
import { advance, beginRollout, isCutShort } from './rollout.ts';
import { type SeededRandom, seededRandom } from './seeded-random.ts';
import { DayWorker, envelope, MINUTE, type Reality, startPath } from './simulated-day-worker.fixture.ts';
import { windowFrom } from './simulated-traffic.fixture.ts';

const WINDOW_MS = 15_000;
const BLOCK_MS = 8000;
/** A search that found nothing is repeated after so long, or when the regime has changed. */
const SEARCH_AGAIN_MS = 30 * MINUTE;
/** What a search looks back, and the least that it wants of a regime. */
const LOOK_BACK_MS = 5 * MINUTE;
const LEAST_REQUESTS = 60;
const MOST_PAIRS = 24;
const MOST_RECENT_STEPS = 5000;
const LEAST_GAPS = 1000;

export interface Played {
  readonly worker: DayWorker;
  readonly switches: { readonly minute: number; readonly from: ExecutionPath; readonly to: ExecutionPath }[];
  /** Minutes at which they began. */
  readonly canaries: number[];
}

/** The day as it goes: windows into the detector, searches when a regime is settled, a canary for each proposal. */
export function play(
  reality: Reality,
  arrivals: readonly Arrival[],
  endsAt: number,
  seed: number,
  log: (line: string) => void,
): Played {
  const random = seededRandom(seed + 5);
  const worker = new DayWorker(arrivals, reality, startPath, seed);
  const tried: TriedPath[] = [];
  const played: Played = { worker, switches: [], canaries: [] };
  let regimes: RegimeState = NO_REGIME;
  const livingId = (regimeId: string): string => livesOnAs(regimes.library, regimeId)?.regimeId ?? '';
  let searchedFor = '';
  let searchAgainAt = 0;
  let typical: StepFeatures[] = [];
  /** Of the live path in this regime. */
  let recent: JudgedStep[] = [];

  const watch = (): void => {
    while (regimes.seenUntil + WINDOW_MS <= worker.now) {
      const from = regimes.seenUntil;
      const own = arrivals.filter(({ at }) => at >= from && at < from + WINDOW_MS);
      const window = windowFrom(
        own.map((arrival) => ({
          at: arrival.at,
          session: Number(arrival.session),
          promptTokens: arrival.promptTokenCount,
          cachedTokens: arrival.cachedTokenCount,
          outputTokens: arrival.completionTokenCount,
        })),
        from,
      );
      const step = advanceRegime(regimes, window);
      for (const { kind: what, name, regimeId, isRecalled } of step.marks) {
        log(`${minuteOf(worker)} ${what} ${name} ${regimeId}${isRecalled ? ' (again)' : ''}`);
      }
      regimes = { ...step.state, seenUntil: from + WINDOW_MS };
    }
  };

  while (worker.now < endsAt) {
    worker.runUntil(Math.min(endsAt, worker.now + WINDOW_MS));
    const steps = worker.takeSteps();
    typical = steps.slice(-500);
    recent = [...recent, ...steps].slice(-MOST_RECENT_STEPS);
    watch();
    const regime = regimes.current;
    if (regime === null || regimes.isSuspected || regime.detectedAt > worker.now - WINDOW_MS) recent = [];
    if (regime === null || regimes.isSuspected) continue;
    const searching = `${regime.regimeId} ${tried.length}`;
    if (searching === searchedFor && worker.now < searchAgainAt) continue;
    const from = Math.max(regime.detectedAt - 4 * WINDOW_MS, regime.startedAt, worker.now - LOOK_BACK_MS);
    const recorded = arrivals.filter(({ at }) => at >= from && at < worker.now - 3000);
    if (recorded.length < LEAST_REQUESTS) continue;
    const { draft, note } = propose({
      workerId: 'w',
      incumbent: worker.path,
      candidates: candidatePaths(worker.path, envelope),
      fits: reality.fits,
      arrivals: recorded,
      envelope,
      objectives: recorded[0]?.objectives ?? { ttftMs: 0, itlMs: 0 },
      deviceUsdPerHour: 1,
      liveItlP99Ms: itlP99Of(recent),
      evidence: {
        windowStartedAt: from,
        windowEndedAt: worker.now,
        stepCount: 1,
        regimeId: regime.regimeId,
        regimeName: regime.name,
      },
      tried: underLivingIds(tried, livingId),
      leastGain: LEAST_GAIN,
      seed: 1,
    });
    log(`${minuteOf(worker)} ${note}`);
    searchedFor = searching;
    searchAgainAt = worker.now + SEARCH_AGAIN_MS;
    if (draft === null) continue;
    played.canaries.push(worker.now / MINUTE);
    const from0 = worker.path;
    tried.push(
      canary(
        worker,
        draft,
        reality,
        typical,
        random,
        regime.regimeId,
        watch,
        () => livingId(regimes.current?.regimeId ?? '') !== livingId(regime.regimeId),
        endsAt,
        log,
      ),
    );
    const end = tried.at(-1);
    log(`${minuteOf(worker)} canary: ${end?.state}`);
    if (end?.state === 'live')
      played.switches.push({ minute: worker.now / MINUTE, from: from0, to: draft.to });
    worker.switchTo(end?.state === 'live' ? draft.to : from0);
    recent = [];
  }
  return played;
}

/** Nobody has to be asked: whatever is worth finding out has its canary. */
const LEAST_GAIN = Number.NEGATIVE_INFINITY;

/** Gaps as telemetry has them, by step; null before there are as many as its query wants. */
function itlP99Of(steps: readonly JudgedStep[]): number | null {
  if (steps.reduce((sum, { itlTokenCount }) => sum + itlTokenCount, 0) < LEAST_GAPS) return null;
  const gaps = steps.map(({ itlMeanMs, itlTokenCount }) => ({ value: itlMeanMs, weight: itlTokenCount }));
  const itlP99Ms = weightedQuantile(gaps, 0.99);
  return Number.isNaN(itlP99Ms) ? null : itlP99Ms;
}

const minuteOf = ({ now }: DayWorker): string => (now / MINUTE).toFixed(1);

/** Blocks of both paths on the traffic that comes, judged as it goes; ended as the service does, when another regime is confirmed. */
function canary(
  worker: DayWorker,
  draft: ProposalDraft,
  reality: Reality,
  typical: readonly StepFeatures[],
  random: SeededRandom,
  regimeId: string,
  watch: () => void,
  isOfAnotherRegime: () => boolean,
  endsAt: number,
  log: (line: string) => void,
): TriedPath {
  const [from, to] = [draft.from, draft.to];
  const prices = freezePrices(reality.fitOf(from), typical);
  const itlObjectiveMs = worker.arrivals.find(({ at }) => at >= worker.now)?.objectives.itlMs ?? 0;
  const { earlierGaps } = draft.evidence;
  let progress = beginRollout({
    at: worker.now,
    approvedBy: 'policy',
    judgingPlan: {
      aim: draft.aim,
      leastPairCount: 4,
      leastPairCountToPromote: 8,
      mostPairCount: MOST_PAIRS,
      itlGuardRatio: 1.5,
      itlObjectiveMs,
      ...(earlierGaps?.objectiveMs === itlObjectiveMs ? { earlierGaps } : {}),
      approvedLogCost: approvedLogCostOf(draft),
    },
  });
  progress = advance(progress, { kind: 'prepared', at: worker.now, prepareMs: 0 });
  progress = advance(progress, { kind: 'checked', at: worker.now, summary: '' });
  const sides = planBlocks(random, MOST_PAIRS);
  for (let pairIndex = 0; pairIndex < MOST_PAIRS && progress.state === 'canary'; pairIndex += 1) {
    const steps = { control: [] as JudgedStep[], candidate: [] as JudgedStep[] };
    for (const side of sides.slice(2 * pairIndex, 2 * pairIndex + 2)) {
      worker.switchTo(side === 'control' ? from : to);
      worker.runUntil(worker.now + BLOCK_MS);
      steps[side] = worker.takeSteps();
    }
    watch();
    if (isOfAnotherRegime() || worker.now >= endsAt) {
      const reason = 'the workload has changed.';
      progress = advance(progress, { kind: 'rolledBack', at: worker.now, by: 'optimizer', reason });
      break;
    }
    const pair = judgePair({
      ...{ pairIndex, prices, itlObjectiveMs, leastStepsPerBlock: 8 },
      ...{ controlSteps: steps.control, candidateSteps: steps.candidate },
      ...{ controlPathId: pathId(from), candidatePathId: pathId(to) },
    });
    progress = advance(
      progress,
      pair === null
        ? { kind: 'pairSkipped', at: worker.now, pairIndex }
        : { kind: 'pairJudged', at: worker.now, pair },
    );
  }
  if (progress.state === 'canary') progress = advance(progress, { kind: 'planEnded', at: worker.now });
  log(`${minuteOf(worker)} ${progress.message}`);
  return {
    ...{ deviceKind: '', modelHash: '', regimeId, from, to },
    state: progress.state,
    endedAt: worker.now,
    isPathsFault: false,
    isCutShort: isCutShort(progress),
    cost: realisedOf(costsAtEqualLoad(progress.pairs)),
    replayedLogCost: draft.evidence.replayedLogCost ?? null,
    itlErrors: itlErrorsOf(draft, draft.metrics, progress.pairs),
    lateGaps: lateGapsOfSides(draft, progress.judgingPlan, progress.pairs),
  };
}
