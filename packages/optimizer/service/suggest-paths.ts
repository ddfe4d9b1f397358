/**
 * The round that replays the last window's arrivals and proposes a better path. Called by main.ts. Searches when something
 * has changed, else ever more rarely; proposes nothing while a canary runs, and not again what was refused in this regime. While
 * a shift of the workload is unconfirmed it proposes nothing; when it is confirmed, canaries from before it are ended and open
 * proposals from before it are withdrawn.
 */
import type { TelemetryClient } from '@variator/clickhouse/client';
import { arrivals as arrivalsOf } from '@variator/clickhouse/queries/arrivals';
import { pathItl } from '@variator/clickhouse/queries/path-itl';
import { stepCount as stepCountOf } from '@variator/clickhouse/queries/step-count';
import { pathId } from '@variator/kernels/execution-path';
import { candidatePaths } from '@variator/optimizer/candidate-paths';
import { draftChoices, guessBasis } from '@variator/optimizer/drawn-guesses';
import { LEAST_SAMPLE_COUNT } from '@variator/optimizer/fit-step-time';
import { faultyChanges, type TriedPath, underLivingIds } from '@variator/optimizer/path-memory';
import type { ProposalDraft } from '@variator/optimizer/proposal';
import { propose } from '@variator/optimizer/propose';
import { quantile } from '@variator/optimizer/quantile';
import type { Arrival } from '@variator/optimizer/replay';
import type { StepTimeFit } from '@variator/scheduler/step-time';
import { isUnderWay } from './calibrate.ts';
import type { Gateway } from './gateway.ts';
import type { FitLearner } from './learn-fits.ts';
import type { RegimeMarker } from './mark-regimes.ts';
import { isDue, mayChange, paceAfter, type SearchPace } from './search-pace.ts';

export interface PathSuggester {
  round(now: number): Promise<void>;
}

const MOST_ARRIVALS = 1000;
/** What a person refused, or a canary ended, stays so for this long in the same kind of regime. */
const LATELY_MS = 30 * 60_000;
/** What a person is asked to approve; a canary that only explores is not worth the asking. */
const LEAST_GAIN = 0.03;
/** Replays of different searches are comparable. */
const SEED = 20_260_101;

type Worker = Awaited<ReturnType<Gateway['workers']['list']['query']>>[number];
type Policy = Awaited<ReturnType<Gateway['objectives']['get']['query']>>;
type LedgerEntry = Awaited<ReturnType<Gateway['ledger']['list']['query']>>[number];
type Rollout = Awaited<ReturnType<Gateway['rollouts']['list']['query']>>[number];
type Proposal = Awaited<ReturnType<Gateway['proposals']['list']['query']>>[number];

export function createPathSuggester(options: {
  readonly gateway: Gateway;
  readonly telemetry: TelemetryClient;
  readonly learner: FitLearner;
  readonly marker: RegimeMarker;
  readonly windowMs: number;
  readonly leastRequestCount: number;
  readonly log: (line: string) => void;
}): PathSuggester {
  const { gateway, telemetry, learner, marker, log } = options;
  /** By worker, since its last search. */
  const searched = new Map<string, { readonly pace: SearchPace; readonly note: string }>();
  /** The regime in which each canary under way was first seen. */
  const regimesOfCanaries = new Map<string, string>();
  /** Made before any regime was known, which their evidence cannot name. */
  const namelessProposals = new Set<string>();
  /** Whose proposals are open; '' before any was known. */
  let regimeOfProposals = '';

  async function windowOf(now: number): Promise<{ fromMs: number; toMs: number; arrivals: Arrival[] }> {
    // Not from its start: the windows of the change itself hold traffic of both regimes.
    const fromMs = Math.max(now - options.windowMs, marker.current()?.detectedAt ?? 0);
    const rows = await arrivalsOf(telemetry, { fromMs, toMs: now, limit: MOST_ARRIVALS });
    const served = rows.filter((row) => row.completionTokenCount > 0 && row.finishReason !== 'error');
    // Requests that still run have no row: the end of the window would look emptier than it was.
    const runningMs = quantile(
      served.map((row) => row.e2eMs),
      0.9,
    );
    const toMs = now - Math.min(Number.isNaN(runningMs) ? 0 : runningMs, 0.25 * (now - fromMs));
    const arrivals = served
      .filter((row) => row.arrivedAt < toMs)
      .map((row) => ({
        at: row.arrivedAt,
        promptTokenCount: row.promptTokenCount,
        cachedTokenCount: row.cachedTokenCount,
        completionTokenCount: row.completionTokenCount,
        session: row.session,
        tenant: row.tenant,
        serviceTier: row.serviceTier,
        objectives: row.objectives,
        isStreamed: row.isStreamed,
        e2eMs: row.e2eMs,
        guesses: row.guesses,
      }));
    return { fromMs: Math.max(fromMs, arrivals[0]?.at ?? fromMs), toMs, arrivals };
  }

  async function search(worker: Worker, policy: Policy, ledger: readonly LedgerEntry[], now: number) {
    const { workerId, envelope, path } = worker;
    const ofDevice = ledger
      .flatMap((entry): TriedPath[] => (entry.tried === undefined ? [] : [entry.tried]))
      .filter((one) => one.deviceKind === envelope.deviceKind && one.modelHash === envelope.modelHash);
    const tried = underLivingIds(ofDevice, marker.livingId);
    const regime = marker.current();
    const fits = learner.fitsFor(envelope).filter((fit) => fit.sampleCount >= LEAST_SAMPLE_COUNT);
    const last = searched.get(workerId);
    if (!mayChange(last?.pace, now)) return;
    const { fromMs, toMs, arrivals } = await windowOf(now);
    if (arrivals.length < options.leastRequestCount) return;
    const circumstances = {
      identity: JSON.stringify([worker.pathId, regime?.regimeId, policy.objectives, tried.length]),
      amounts: amountsOf(arrivals, fits, now),
    };
    if (!isDue(last?.pace, circumstances, now)) return;
    const [stepCount, liveItlP99Ms] = await Promise.all([
      stepCountOf(telemetry, { workerId, fromMs, toMs }),
      pathItl(telemetry, { workerId, pathId: worker.pathId, fromMs, toMs }),
    ]);

    const startedAt = performance.now();
    const { draft, note } = propose({
      workerId,
      incumbent: path,
      candidates: candidatePaths(path, envelope, faultyChanges(tried, now), draftChoices(arrivals)),
      tried,
      leastGain: LEAST_GAIN,
      fits,
      arrivals,
      envelope,
      objectives: policy.objectives,
      deviceUsdPerHour: policy.deviceUsdPerHour,
      liveItlP99Ms,
      evidence: {
        windowStartedAt: fromMs,
        windowEndedAt: toMs,
        stepCount,
        regimeId: regime?.regimeId ?? '',
        regimeName: regime?.name ?? '',
      },
      seed: SEED,
    });
    const pace = paceAfter(last?.pace, circumstances, performance.now() - startedAt, now);
    searched.set(workerId, { pace, note });
    const isNews =
      draft !== null && !isSettled(draft, await gateway.proposals.list.query({ limit: 100 }), now);
    if (!isNews) {
      if (last?.note !== note) log(note);
      return;
    }
    const { proposalId } = await gateway.proposals.create.mutate(draft);
    if (draft.evidence.regimeId === '') namelessProposals.add(proposalId);
    log(`proposed ${proposalId}: ${note}`);
  }

  /**
   * Blocks of two regimes say nothing of two paths: inconclusive, as an aborted analysis is. Only where another regime is confirmed: a
   * suspicion comes and goes, and somebody may have approved the canary.
   */
  async function endCanariesOfBefore(rollouts: readonly Rollout[]): Promise<void> {
    const regimeId = marker.current()?.regimeId ?? '';
    const known = new Map(regimesOfCanaries);
    regimesOfCanaries.clear();
    for (const { rolloutId, state } of rollouts) {
      if (state !== 'canary') continue;
      const before = known.get(rolloutId) ?? regimeId;
      regimesOfCanaries.set(rolloutId, before === '' ? regimeId : before);
      if (before === '' || (marker.livingId(before) || before) === regimeId) continue;
      await gateway.rollouts.rollBack.mutate({ rolloutId });
      log(`ended canary ${rolloutId}: the workload has changed`);
    }
  }

  /** What they promise is of traffic that is gone. When it comes again, its regime is known and they are proposed anew. */
  async function withdrawProposalsOfBefore(): Promise<void> {
    const regimeId = marker.current()?.regimeId ?? '';
    if (regimeId === '' || regimeId === regimeOfProposals) return;
    const isFirst = regimeOfProposals === '';
    for (const { proposalId, state, evidence } of await gateway.proposals.list.query({ limit: 100 })) {
      if (state !== 'open') continue;
      const isNameless = evidence.regimeId === '';
      const isOfNow = isNameless
        ? isFirst || !namelessProposals.has(proposalId)
        : (marker.livingId(evidence.regimeId) || evidence.regimeId) === regimeId;
      if (isOfNow) continue;
      await gateway.proposals.withdraw.mutate({ proposalId, reason: 'The workload has changed.' });
      log(`withdrew ${proposalId}: the workload has changed`);
    }
    if (!isFirst) namelessProposals.clear();
    // Last, so that a round which failed half-way is done again.
    regimeOfProposals = regimeId;
  }

  return {
    async round(now) {
      const rollouts = await gateway.rollouts.list.query({ limit: 20 });
      await endCanariesOfBefore(rollouts);
      await withdrawProposalsOfBefore();
      // Arrivals of two regimes say nothing about either.
      if (marker.isSuspended()) return;
      const [workers, policy, ledger] = await Promise.all([
        gateway.workers.list.query(),
        gateway.objectives.get.query(),
        gateway.ledger.list.query({ limit: 200 }),
      ]);
      for (const worker of workers) {
        const isInCanary = rollouts.some(
          (rollout) => rollout.workerId === worker.workerId && isUnderWay(rollout.state),
        );
        if (!isInCanary) await search(worker, policy, ledger, now);
      }
    },
  };
}

/** What a search's answer follows from, of the traffic and of what is known of the kernels. */
/** A window that is still filling is no change, nor is a fit that knows enough getting to know more. */
const LEAST_SPAN_MS = 30_000;
const ENOUGH_SAMPLES = 200;

function amountsOf(
  arrivals: readonly Arrival[],
  fits: readonly StepTimeFit[],
  now: number,
): Record<string, number> {
  const firstAt = arrivals.reduce((first, { at }) => Math.min(first, at), now);
  const spanMs = Math.max(LEAST_SPAN_MS, now - firstAt);
  const mean = (of: (arrival: Arrival) => number): number =>
    arrivals.reduce((sum, arrival) => sum + of(arrival), 0) / Math.max(1, arrivals.length);
  const basis = guessBasis(arrivals);
  return {
    arrivalsAMinute: (60_000 * arrivals.length) / spanMs,
    promptTokenCount: mean((arrival) => arrival.promptTokenCount),
    uncachedTokenCount: mean((arrival) => arrival.promptTokenCount - arrival.cachedTokenCount),
    completionTokenCount: mean((arrival) => arrival.completionTokenCount),
    // From a few right guesses in a hundred tokens to many, or from not knowing to knowing, is a change.
    rightGuessesAmongTen: 10 * (basis === null ? 0 : basis.guessedShare * basis.rightShare),
    areGuessesKnown: basis === null ? 0 : 1,
    ...Object.fromEntries(fits.map((fit) => [fit.kernelsId, Math.min(ENOUGH_SAMPLES, fit.sampleCount)])),
  };
}

/**
 * The same change is open with evidence from this regime, or was decided in this kind of regime not long ago. An open one
 * from another regime is proposed again: the control plane renews its figures.
 */
function isSettled(draft: ProposalDraft, proposals: readonly Proposal[], now: number): boolean {
  return proposals.some((before) => {
    const isSame =
      before.workerId === draft.workerId &&
      before.fromPathId === pathId(draft.from) &&
      before.toPathId === pathId(draft.to);
    if (!isSame || before.state === 'superseded') return false;
    if (before.state === 'open') return before.evidence.regimeId === draft.evidence.regimeId;
    const isLately = now - (before.decidedAt ?? before.createdAt) < LATELY_MS;
    return isLately && before.evidence.regimeName === draft.evidence.regimeName;
  });
}
