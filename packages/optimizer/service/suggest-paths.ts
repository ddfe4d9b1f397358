/**
 * The round that replays the last window's arrivals and proposes a better path. Called by main.ts. Searches when something
 * has changed, else ever more rarely; proposes nothing while a shift of the workload is unconfirmed or a canary runs, and not
 * again what was refused in this regime.
 */
import type { TelemetryClient } from '@variator/clickhouse/client';
import { arrivals as arrivalsOf } from '@variator/clickhouse/queries/arrivals';
import { stepCount as stepCountOf } from '@variator/clickhouse/queries/step-count';
import { pathId } from '@variator/kernels/execution-path';
import { candidatePaths } from '@variator/optimizer/candidate-paths';
import { LEAST_SAMPLE_COUNT } from '@variator/optimizer/fit-step-time';
import { faultyChanges, type TriedPath } from '@variator/optimizer/path-memory';
import type { ProposalDraft } from '@variator/optimizer/proposal';
import { propose } from '@variator/optimizer/propose';
import { quantile } from '@variator/optimizer/quantile';
import type { Arrival } from '@variator/optimizer/replay';
import { isUnderWay } from './calibrate.ts';
import type { Gateway } from './gateway.ts';
import type { FitLearner } from './learn-fits.ts';
import type { RegimeMarker } from './mark-regimes.ts';

export interface PathSuggester {
  round(now: number): Promise<void>;
}

const MOST_ARRIVALS = 1000;
/** What a person refused, or a canary ended, stays so for this long in the same kind of regime. */
const LATELY_MS = 30 * 60_000;
/** A search under the same circumstances waits for this multiple of what the last one took, within bounds. */
const REST_FACTOR = 50;
const MOST_REST_MS = 180_000;
const LEAST_REST_FACTOR = 5;
/** Replays of different searches are comparable. */
const SEED = 20_260_101;

interface Search {
  readonly circumstances: string;
  readonly restUntil: number;
  /** Whatever changed. */
  readonly leastRestUntil: number;
  readonly note: string;
}

const magnitude = (count: number): number => Math.floor(Math.log2(Math.max(1, count)));

type Worker = Awaited<ReturnType<Gateway['workers']['list']['query']>>[number];
type Policy = Awaited<ReturnType<Gateway['objectives']['get']['query']>>;
type LedgerEntry = Awaited<ReturnType<Gateway['ledger']['list']['query']>>[number];
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
  /** By worker: what the last search looked at, and when the same is worth looking at again. */
  const searched = new Map<string, Search>();

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
      }));
    return { fromMs: Math.max(fromMs, arrivals[0]?.at ?? fromMs), toMs, arrivals };
  }

  async function search(
    worker: Worker,
    policy: Policy,
    proposals: readonly Proposal[],
    ledger: readonly LedgerEntry[],
    now: number,
  ) {
    const { workerId, envelope, path } = worker;
    const tried = ledger
      .flatMap((entry): TriedPath[] => (entry.tried === undefined ? [] : [entry.tried]))
      .filter((one) => one.deviceKind === envelope.deviceKind && one.modelHash === envelope.modelHash);
    const regime = marker.current();
    const fits = learner.fitsFor(envelope).filter((fit) => fit.sampleCount >= LEAST_SAMPLE_COUNT);
    const last = searched.get(workerId);
    if (last !== undefined && now < last.leastRestUntil) return;
    const { fromMs, toMs, arrivals } = await windowOf(now);
    if (arrivals.length < options.leastRequestCount) return;
    // Twice the evidence is a new question, too.
    const circumstances = JSON.stringify([
      worker.pathId,
      regime?.regimeId,
      policy.objectives,
      fits.map((fit) => [fit.kernelsId, magnitude(fit.sampleCount)]),
      magnitude(arrivals.length),
      tried.length,
    ]);
    if (last?.circumstances === circumstances && now < last.restUntil) return;
    const stepCount = await stepCountOf(telemetry, { workerId, fromMs, toMs });

    const startedAt = performance.now();
    const { draft, note } = propose({
      workerId,
      incumbent: path,
      candidates: candidatePaths(path, envelope, faultyChanges(tried, now)),
      tried,
      fits,
      arrivals,
      envelope,
      objectives: policy.objectives,
      deviceUsdPerHour: policy.deviceUsdPerHour,
      evidence: {
        windowStartedAt: fromMs,
        windowEndedAt: toMs,
        stepCount,
        regimeId: regime?.regimeId ?? '',
        regimeName: regime?.name ?? '',
      },
      seed: SEED,
    });
    const tookMs = performance.now() - startedAt;
    const restUntil = now + Math.min(MOST_REST_MS, REST_FACTOR * tookMs);
    searched.set(workerId, {
      circumstances,
      restUntil,
      leastRestUntil: now + LEAST_REST_FACTOR * tookMs,
      note,
    });
    if (draft === null || isSettled(draft, proposals, now)) {
      if (last?.note !== note) log(note);
      return;
    }
    const { proposalId } = await gateway.proposals.create.mutate(draft);
    log(`proposed ${proposalId}: ${note}`);
  }

  return {
    async round(now) {
      // Arrivals of two regimes say nothing about either.
      if (marker.isSuspended()) return;
      const [workers, policy, proposals, rollouts, ledger] = await Promise.all([
        gateway.workers.list.query(),
        gateway.objectives.get.query(),
        gateway.proposals.list.query({ limit: 100 }),
        gateway.rollouts.list.query({ limit: 20 }),
        gateway.ledger.list.query({ limit: 200 }),
      ]);
      for (const worker of workers) {
        const isInCanary = rollouts.some(
          (rollout) => rollout.workerId === worker.workerId && isUnderWay(rollout.state),
        );
        if (!isInCanary) await search(worker, policy, proposals, ledger, now);
      }
    },
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
