/**
 * The rollouts: those under way (one per worker), those over, and the live path each worker was last promoted to. Owned
 * by open-control.ts, which has checked whether a rollout may begin. Stores every event before the next act depends on it.
 */
import { type ExecutionPath, pathId } from '@variator/kernels/execution-path';
import { advance, hasEnded, type RolloutEvent } from '@variator/optimizer/rollout';
import type { Fleet } from '../fleet/fleet.ts';
import { ControlError } from './control-error.ts';
import type { AuditEntry, ControlStore } from './control-store.ts';
import type { RolloutView } from './control-types.ts';
import { driveRollout } from './rollout-driver.ts';
import {
  foldRecord,
  type LivePath,
  ledgerEntryOf,
  openRecord,
  type RolloutOpening,
  type RolloutRecord,
  viewOf,
} from './rollout-record.ts';

export interface RolloutRunsOptions {
  readonly store: ControlStore;
  readonly fleet: Fleet;
  readonly encode: (text: string) => Promise<readonly number[]>;
  readonly now: () => number;
  readonly log: (line: string) => void;
  /** A worker's live path has changed: what was proposed for another one is out of date. */
  readonly onPromoted: (workerId: string, path: ExecutionPath) => Promise<void>;
}

interface Run {
  record: RolloutRecord;
  /** The last event's row is stored, and all before it. */
  stored: Promise<void>;
  readonly ended: AbortController;
  /** The rollout is over and its ledger entry written. */
  done: Promise<void>;
}

export interface RolloutRuns {
  /** Fails what a restart interrupted, and loads the live paths. */
  restore(): Promise<void>;
  openingOn(workerId: string): RolloutOpening | null;
  /** Begins it; the worker must have no other. The opening is stored already. */
  begin(opening: RolloutOpening): void;
  /** Ends every rollout under way and resolves when the workers are back on their paths. */
  stopAll(by: string, reason: string): Promise<void>;
  /** Ends one that is under way; null where it is not. */
  stop(rolloutId: string, by: string, reason: string): Promise<RolloutView | null>;
  /** Takes a live path back. */
  rollBack(rolloutId: string, by: string): Promise<RolloutView>;
  view(rolloutId: string): Promise<RolloutView>;
  list(limit: number): Promise<RolloutView[]>;
  livePath(workerId: string): LivePath | null;
  promote(livePath: LivePath, audit: AuditEntry): Promise<void>;
  close(): Promise<void>;
}

/** Rollouts that are over do not change, except by a rollback that goes through here. */
const MOST_KEPT_RECORDS = 256;

export function rolloutRuns(options: RolloutRunsOptions): RolloutRuns {
  const { store, fleet, now, log } = options;
  const runs = new Map<string, Run>();
  const livePaths = new Map<string, LivePath>();
  const over = new Map<string, RolloutRecord>();

  function runOf(rolloutId: string): Run | undefined {
    return [...runs.values()].find(({ record }) => record.opening.rolloutId === rolloutId);
  }

  async function recordOf(rolloutId: string): Promise<RolloutRecord> {
    const kept = runOf(rolloutId)?.record ?? over.get(rolloutId);
    if (kept) return kept;
    const rows = await store.rolloutEvents(rolloutId);
    if (rows.length === 0) throw new ControlError('notFound', `There is no rollout "${rolloutId}".`);
    const record = foldRecord(rows);
    keep(record);
    return record;
  }

  function keep(record: RolloutRecord): void {
    over.set(record.opening.rolloutId, record);
    for (const oldest of over.keys()) {
      if (over.size <= MOST_KEPT_RECORDS) return;
      over.delete(oldest);
    }
  }

  function view(record: RolloutRecord): RolloutView {
    const shown = viewOf(record, livePaths.get(record.opening.workerId) ?? null);
    // Just gone live and its promotion still being stored: rollBack waits for that, so it may be asked for already.
    const isBeingPromoted = shown.state === 'live' && runOf(shown.rolloutId) !== undefined;
    return isBeingPromoted ? { ...shown, canRollBack: true } : shown;
  }

  /** In memory at once, so that a stop is seen by the driver before the disk has it. */
  function record(run: Run, event: RolloutEvent): Promise<void> {
    const { opening, progress, eventCount } = run.record;
    const next = advance(progress, event);
    if (next === progress) return run.stored;
    run.record = { opening, progress: next, eventCount: eventCount + 1 };
    run.stored = run.stored.then(() =>
      store.appendEvent(opening.rolloutId, eventCount, { at: event.at, event }),
    );
    if (hasEnded(next)) log(`rollout ${opening.rolloutId} is ${next.state}: ${next.message}`);
    return run.stored;
  }

  async function promote(livePath: LivePath, audit: AuditEntry): Promise<void> {
    await store.saveLivePath(livePath, audit);
    livePaths.set(livePath.workerId, livePath);
    await options.onPromoted(livePath.workerId, livePath.path);
  }

  function promoteTo(opening: RolloutOpening): Promise<void> {
    const { workerId, to: path, rolloutId, approvedBy } = opening;
    return promote(
      { workerId, path, rolloutId, promotedAt: now() },
      {
        auditId: `promote:${rolloutId}`,
        at: now(),
        who: approvedBy,
        what: 'promote',
        subject: workerId,
        details: pathId(path),
      },
    );
  }

  async function finish({ opening, progress, eventCount }: RolloutRecord): Promise<void> {
    await store.saveLedgerEntry(ledgerEntryOf({ opening, progress, eventCount }));
    const { rolloutId, proposalId, approvedBy } = opening;
    await store.moveProposal(
      proposalId,
      'approved',
      { state: 'finished', rolloutId, decidedBy: approvedBy, decidedAt: opening.at },
      {
        auditId: `finish:${rolloutId}`,
        at: now(),
        who: 'control',
        what: 'finish',
        subject: rolloutId,
        details: progress.state,
      },
    );
  }

  async function end(run: Run, event: RolloutEvent): Promise<void> {
    const stored = record(run, event);
    run.ended.abort();
    await stored;
    await run.done;
  }

  return {
    async restore() {
      for (const livePath of await store.livePaths()) livePaths.set(livePath.workerId, livePath);
      for (const rolloutId of await store.unfinishedRolloutIds()) {
        const { opening, progress, eventCount } = foldRecord(await store.rolloutEvents(rolloutId));
        const event = { kind: 'failed', at: now(), reason: 'It was interrupted by a restart.' } as const;
        const next = advance(progress, event);
        if (next !== progress) await store.appendEvent(rolloutId, eventCount, { at: event.at, event });
        else if (next.state === 'live') await promoteTo(opening);
        await finish({ opening, progress: next, eventCount: eventCount + 1 });
        log(`rollout ${rolloutId} was under way when the gateway ended; it is ${next.state}`);
      }
    },
    openingOn: (workerId) => runs.get(workerId)?.record.opening ?? null,
    begin(opening) {
      if (runs.has(opening.workerId)) throw new Error(`${opening.workerId} has a rollout under way.`);
      const run: Run = {
        record: openRecord(opening),
        stored: Promise.resolve(),
        ended: new AbortController(),
        done: Promise.resolve(),
      };
      runs.set(opening.workerId, run);
      run.done = driveRollout(opening, {
        fleet,
        encode: options.encode,
        now,
        record: (event) => record(run, event),
        progress: () => run.record.progress,
        promote: () => promoteTo(opening),
        ended: run.ended.signal,
      })
        .then(() => finish(run.record))
        .catch((error: unknown) => {
          // Its rows end where the database failed; the next start folds them and finishes it.
          log(`rollout ${opening.rolloutId} could not be stored: ${String(error)}`);
        })
        .finally(() => {
          runs.delete(opening.workerId);
          keep(run.record);
        });
    },
    async stopAll(by, reason) {
      const event = { kind: 'rolledBack', at: now(), by, reason } as const;
      await Promise.all([...runs.values()].map((run) => end(run, event)));
    },
    async stop(rolloutId, by, reason) {
      const run = runOf(rolloutId);
      if (!run || hasEnded(run.record.progress)) return null;
      await end(run, { kind: 'rolledBack', at: now(), by, reason });
      return view(run.record);
    },
    async rollBack(rolloutId, by) {
      const event = { kind: 'rolledBack', at: now(), by, reason: 'asked for by a person.' } as const;
      // One that has just gone live settles first: its promotion must not overtake its rollback.
      await runOf(rolloutId)?.done;
      const before = await recordOf(rolloutId);
      const { opening, progress, eventCount } = before;
      if (progress.state === 'rolledBack') return view(before);
      if (!view(before).canRollBack) {
        const why =
          progress.state === 'live'
            ? 'a later change of path stands on top of it'
            : `it has ended as ${progress.state}`;
        throw new ControlError('conflict', `Rollout ${rolloutId} cannot be rolled back: ${why}.`);
      }
      const { workerId, from: path, incumbentRolloutId } = opening;
      if (runs.has(workerId)) {
        throw new ControlError('conflict', `Stop the rollout under way on ${workerId} first.`);
      }
      const next = { opening, progress: advance(progress, event), eventCount: eventCount + 1 };
      await store.appendEvent(rolloutId, eventCount, { at: event.at, event });
      keep(next);
      await promote(
        { workerId, path, rolloutId: incumbentRolloutId, promotedAt: event.at },
        {
          auditId: `rollBack:${rolloutId}`,
          at: event.at,
          who: by,
          what: 'rollBack',
          subject: rolloutId,
          details: pathId(path),
        },
      );
      await store.saveLedgerEntry(ledgerEntryOf(next));
      const worker = fleet.workers().find((candidate) => candidate.workerId === workerId);
      // A worker that is away gets the path when it joins again.
      if (worker && worker.pathId !== pathId(path)) await fleet.switchTo(workerId, path, rolloutId);
      return view(next);
    },
    view: async (rolloutId) => view(await recordOf(rolloutId)),
    async list(limit) {
      const ids = await store.rolloutIds(limit);
      return Promise.all(ids.map(async (rolloutId) => view(await recordOf(rolloutId))));
    },
    livePath: (workerId) => livePaths.get(workerId) ?? null,
    promote,
    async close() {
      const event = { kind: 'failed', at: now(), reason: 'It was interrupted: the gateway ended.' } as const;
      await Promise.all([...runs.values()].map((run) => end(run, event)));
    },
  };
}
