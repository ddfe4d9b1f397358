/**
 * Acts out one rollout on one worker: prepare, equality check, canary, and what its end demands. Started by open-control.ts,
 * which stores the events. Thin: packages/optimizer's reducer and judge decide, this asks the fleet and waits.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { kernelsId, pathFaults, pathId } from '@variator/kernels/execution-path';
import { planBlocks } from '@variator/optimizer/canary-judge';
import { hasEnded, type RolloutEvent, type RolloutProgress } from '@variator/optimizer/rollout';
import { rooflinePrior } from '@variator/optimizer/roofline-prior';
import { seededRandom } from '@variator/optimizer/seeded-random';
import type { StepTimeFit } from '@variator/scheduler/step-time';
import { type Fleet, FleetError, type WorkerView } from '../fleet/fleet.ts';
import { canaryBlocks } from './canary-blocks.ts';
import { checkEquality } from './equality-check.ts';
import type { RolloutOpening } from './rollout-record.ts';

/** Rows travel in batches: the last steps of a plan arrive a little after its end. */
const ROW_GRACE_MS = 700;
/** A worker that was told to end a plan does so at its next step border. */
const PLAN_END_LIMIT_MS = 10_000;

export interface RolloutActs {
  readonly fleet: Fleet;
  readonly encode: (text: string) => Promise<readonly number[]>;
  readonly now: () => number;
  /** Advances the rollout and stores the event; events of a rollout are stored in the order of these calls. */
  record(event: RolloutEvent): Promise<void>;
  progress(): RolloutProgress;
  /** Makes the path the worker's last promoted one, in the database, before the worker is told. */
  promote(): Promise<void>;
  /** Aborted when something outside ended the rollout: a person, the kill switch, the gateway's own end. */
  readonly ended: AbortSignal;
}

/** Resolves when the rollout has ended and its worker is on the path that the end demands; rejects if the database fails. */
export async function driveRollout(opening: RolloutOpening, acts: RolloutActs): Promise<void> {
  try {
    await warm(opening, acts);
    if (!hasEnded(acts.progress())) await runCanary(opening, acts);
  } catch (error) {
    await acts.record({ kind: 'failed', at: acts.now(), reason: reasonOf(error), isPathsFault: true });
  }
  await settle(opening, acts);
}

async function warm(opening: RolloutOpening, acts: RolloutActs): Promise<void> {
  const { fleet, now } = acts;
  const { workerId, from, to, seed } = opening;
  const { envelope } = workerOf(fleet, workerId);
  const illegal = pathFaults(to, envelope);
  if (illegal.length > 0) throw new FleetError(illegal.join(' '));
  const { faults, prepareMs } = await unlessEnded(acts, fleet.prepare(workerId, to));
  if (faults.length > 0) throw new FleetError(`The path could not be prepared: ${faults.join(' ')}`);
  await acts.record({ kind: 'prepared', at: now(), prepareMs });
  const question = { fleet, encode: acts.encode, workerId, envelope, from, to, seed };
  const { isEqual, summary } = await unlessEnded(acts, checkEquality(question));
  if (isEqual) await acts.record({ kind: 'checked', at: now(), summary });
  else await acts.record({ kind: 'failed', at: now(), reason: summary, isPathsFault: true });
}

async function runCanary(opening: RolloutOpening, acts: RolloutActs): Promise<void> {
  const { fleet } = acts;
  const { rolloutId, workerId, from, to, blockDurationMs, judgingPlan, seed } = opening;
  const sides = planBlocks(seededRandom(seed), judgingPlan.mostPairCount);
  const canary = canaryBlocks(opening, sides, () => incumbentFit(fleet, opening));
  const over = new AbortController();
  const isOver = () => hasEnded(acts.progress());

  let judging = Promise.resolve();
  function judge(isPlanOver: boolean): Promise<void> {
    judging = judging.then(() => judgeNow(isPlanOver));
    return judging;
  }
  async function judgeNow(isPlanOver: boolean): Promise<void> {
    for (const { pairIndex, pair } of canary.judge(isPlanOver)) {
      if (isOver()) return;
      const at = acts.now();
      await acts.record(
        pair === null ? { kind: 'pairSkipped', at, pairIndex } : { kind: 'pairJudged', at, pair },
      );
    }
  }
  async function watch(): Promise<void> {
    for await (const rows of fleet.watchSteps(over.signal)) {
      canary.take(rows);
      await judge(false);
      if (isOver()) return;
    }
    if (!over.signal.aborted) throw new FleetError(`The steps of ${workerId} can no longer be watched.`);
  }
  async function runPlan(): Promise<void> {
    const blocks = sides.map((side) => ({
      pathId: pathId(side === 'control' ? from : to),
      durationMs: blockDurationMs,
    }));
    const plan = { rolloutId, incumbent: from, candidate: to, blocks };
    const { completedBlockCount } = await fleet.alternate(workerId, plan);
    if (isOver()) return;
    if (completedBlockCount < blocks.length) {
      throw new FleetError(
        `${workerId} ended the plan after ${completedBlockCount} of ${blocks.length} blocks.`,
      );
    }
    await pause(ROW_GRACE_MS, undefined, { signal: over.signal }).catch(ignoreAbort);
  }

  const watching = watch();
  const plan = runPlan();
  // Whoever loses the race below still fails in its own time; each failure was either reported or is of no interest.
  for (const part of [watching, plan]) part.catch(() => undefined);
  try {
    await Promise.race([watching, plan, aborted(acts.ended)]);
    if (!isOver()) {
      await judge(true);
      if (!isOver()) await acts.record({ kind: 'planEnded', at: acts.now() });
    }
  } finally {
    over.abort();
    await endPlan(opening, acts, plan);
  }
}

/** Ends the blocks under way and waits until the worker says so; a lost worker has none. */
async function endPlan(opening: RolloutOpening, acts: RolloutActs, plan: Promise<void>): Promise<void> {
  const { rolloutId, workerId, from, to } = opening;
  if (!acts.fleet.workers().some((worker) => worker.workerId === workerId)) return;
  const limit = new AbortController();
  await Promise.race([
    acts.fleet
      .alternate(workerId, { rolloutId, incumbent: from, candidate: to, blocks: [] })
      .then(() => plan)
      .catch(() => undefined),
    pause(PLAN_END_LIMIT_MS, undefined, { signal: limit.signal }).catch(ignoreAbort),
  ]);
  limit.abort();
}

/** Puts the worker on the path that the end demands; a lost worker gets it when it joins again. */
async function settle(opening: RolloutOpening, acts: RolloutActs): Promise<void> {
  const { fleet } = acts;
  const { workerId, rolloutId, from, to } = opening;
  const isLive = acts.progress().state === 'live';
  if (isLive) await acts.promote();
  const worker = fleet.workers().find((candidate) => candidate.workerId === workerId);
  if (!worker) return;
  if (!isLive && worker.pathId === pathId(from)) return;
  await fleet.switchTo(workerId, isLive ? to : from, rolloutId).catch((error: unknown) => {
    if (!(error instanceof FleetError)) throw error;
  });
}

/** The incumbent's fit; before the first one, what its device's measured speed says. */
function incumbentFit(fleet: Fleet, { workerId, from }: RolloutOpening): StepTimeFit {
  const { envelope } = workerOf(fleet, workerId);
  const kernels = kernelsId(from);
  const fit = fleet.fitFor(envelope.deviceKind, envelope.modelHash, kernels);
  if (fit) return fit;
  return {
    ...rooflinePrior(envelope, from),
    fitId: '',
    deviceKind: envelope.deviceKind,
    modelHash: envelope.modelHash,
    kernelsId: kernels,
    fittedAt: 0,
    sampleCount: 0,
    heldOutMape: null,
    heldOutCount: 0,
    logBand90: null,
  };
}

function workerOf(fleet: Fleet, workerId: string): WorkerView {
  const worker = fleet.workers().find((candidate) => candidate.workerId === workerId);
  if (!worker) throw new FleetError(`There is no worker ${workerId}.`);
  return worker;
}

class EndedFromOutside extends Error {
  override readonly name = 'EndedFromOutside';
}

/** @throws EndedFromOutside as soon as the rollout was ended from outside; what was asked goes on unheard */
async function unlessEnded<Answer>(acts: RolloutActs, asked: Promise<Answer>): Promise<Answer> {
  asked.catch(() => undefined);
  const answer = await Promise.race([asked, aborted(acts.ended)]);
  if (answer === 'aborted' || acts.ended.aborted) throw new EndedFromOutside('The rollout was ended.');
  return answer;
}

function aborted(signal: AbortSignal): Promise<'aborted'> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve('aborted');
    else signal.addEventListener('abort', () => resolve('aborted'), { once: true });
  });
}

function ignoreAbort(error: unknown): void {
  if (!(error instanceof Error && error.name === 'AbortError')) throw error;
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
