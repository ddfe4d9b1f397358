/**
 * The control plane's database: Kysely over a SQLite file (libsql). Called by open-control.ts alone, which owns it; each
 * method is one question or one change, in one transaction. Decides nothing; JSON goes in and out as typed nouns.
 */
import { completedPath, type ExecutionPath } from '@variator/kernels/execution-path';
import type { ProposalDraft } from '@variator/optimizer/proposal';
import { Kysely, SqliteDialect, type Transaction } from 'kysely';
import { openSqliteFile } from '../sqlite-file.ts';
import { ControlError } from './control-error.ts';
import { type ControlTables, migrateControl } from './control-migrations.ts';
import type { LedgerEntry, Proposal, ProposalState } from './control-types.ts';
import type { PolicyChange } from './policy.ts';
import type { LivePath, RolloutEventRow, RolloutOpening } from './rollout-record.ts';

/** Who did what to which thing, when; the id makes a repetition of the same deed one row. */
export interface AuditEntry {
  readonly auditId: string;
  readonly at: number;
  readonly who: string;
  readonly what: string;
  readonly subject: string;
  readonly details: string;
}

export interface KillSwitch {
  readonly isOn: boolean;
  /** null while it was never touched. */
  readonly changedAt: number | null;
  readonly changedBy: string;
  readonly reason: string;
}

export interface ControlStore {
  policyChanges(): Promise<PolicyChange>;
  savePolicyChanges(changes: PolicyChange, audit: AuditEntry): Promise<void>;
  /** Newest first. */
  proposals(limit: number): Promise<Proposal[]>;
  openProposals(workerId: string): Promise<Proposal[]>;
  proposal(proposalId: string): Promise<Proposal | null>;
  saveProposal(proposal: Proposal, audit: AuditEntry): Promise<void>;
  /** False where the proposal was no longer in `from`: somebody decided first. */
  moveProposal(
    proposalId: string,
    from: ProposalState,
    to: ProposalMove,
    audit: AuditEntry,
  ): Promise<boolean>;
  /** Approves an open proposal and opens its rollout, both or neither; false where it was no longer open. */
  beginRollout(opening: RolloutOpening, audit: AuditEntry): Promise<boolean>;
  appendEvent(rolloutId: string, eventIndex: number, row: RolloutEventRow): Promise<void>;
  /** Rollouts that have no ledger entry yet: they had not ended when the database was closed. */
  unfinishedRolloutIds(): Promise<string[]>;
  /** The ids of all rollouts, newest first. */
  rolloutIds(limit: number): Promise<string[]>;
  rolloutEvents(rolloutId: string): Promise<RolloutEventRow[]>;
  saveLedgerEntry(entry: LedgerEntry): Promise<void>;
  ledger(limit: number): Promise<LedgerEntry[]>;
  killSwitch(): Promise<KillSwitch>;
  saveKillSwitch(killSwitch: KillSwitch, audit: AuditEntry): Promise<void>;
  livePaths(): Promise<LivePath[]>;
  saveLivePath(livePath: LivePath, audit: AuditEntry): Promise<void>;
  audit(limit: number): Promise<AuditEntry[]>;
  close(): Promise<void>;
}

export interface ProposalMove {
  readonly state: ProposalState;
  readonly rolloutId: string;
  readonly decidedBy: string;
  readonly decidedAt: number | null;
}

/** @throws ControlError with a sentence that names the file and what is wrong with it */
export async function openControlStore(file: string, now: number): Promise<ControlStore> {
  const db = new Kysely<ControlTables>({ dialect: new SqliteDialect({ database: openDatabase(file) }) });
  try {
    await migrateControl(db, now);
  } catch (error) {
    await db.destroy();
    if (error instanceof ControlError) throw error;
    throw new ControlError('invalid', `${file} is not a control database of Variator: ${words(error)}.`, {
      cause: error,
    });
  }
  return createStore(db);
}

function openDatabase(file: string): ReturnType<typeof openSqliteFile> {
  try {
    return openSqliteFile(file, 'NORMAL');
  } catch (error) {
    throw new ControlError('invalid', `The control database ${file} cannot be opened: ${words(error)}.`, {
      cause: error,
    });
  }
}

function createStore(db: Kysely<ControlTables>): ControlStore {
  type Db = Kysely<ControlTables> | Transaction<ControlTables>;
  const writeAudit = (on: Db, audit: AuditEntry) =>
    on
      .insertInto('audit')
      .values(audit)
      .onConflict((conflict) => conflict.column('auditId').doNothing())
      .execute();

  return {
    async policyChanges() {
      const row = await db.selectFrom('policy').select('changes').executeTakeFirst();
      return row ? (JSON.parse(row.changes) as PolicyChange) : {};
    },
    savePolicyChanges: (changes, audit) =>
      db.transaction().execute(async (transaction) => {
        const row = { changes: JSON.stringify(changes), changedAt: audit.at, changedBy: audit.who };
        await transaction
          .insertInto('policy')
          .values({ policyId: 1, ...row })
          .onConflict((conflict) => conflict.column('policyId').doUpdateSet(row))
          .execute();
        await writeAudit(transaction, audit);
      }),

    async proposals(limit) {
      const rows = await db
        .selectFrom('proposals')
        .selectAll()
        .orderBy('createdAt', 'desc')
        .orderBy('proposalId', 'desc')
        .limit(limit)
        .execute();
      return rows.map(proposalOf);
    },
    async openProposals(workerId) {
      const rows = await db
        .selectFrom('proposals')
        .selectAll()
        .where('workerId', '=', workerId)
        .where('state', '=', 'open')
        .orderBy('createdAt', 'asc')
        .execute();
      return rows.map(proposalOf);
    },
    async proposal(proposalId) {
      const row = await db
        .selectFrom('proposals')
        .selectAll()
        .where('proposalId', '=', proposalId)
        .executeTakeFirst();
      return row ? proposalOf(row) : null;
    },
    saveProposal: (proposal, audit) =>
      db.transaction().execute(async (transaction) => {
        const {
          proposalId,
          createdAt,
          state,
          fromPathId,
          toPathId,
          rolloutId,
          decidedBy,
          decidedAt,
          ...draft
        } = proposal;
        const row = { createdAt, draft: JSON.stringify(draft) };
        await transaction
          .insertInto('proposals')
          .values({
            proposalId,
            createdBy: audit.who,
            state,
            workerId: draft.workerId,
            fromPathId,
            toPathId,
            rolloutId,
            decidedBy,
            decidedAt,
            ...row,
          })
          .onConflict((conflict) => conflict.column('proposalId').doUpdateSet(row))
          .execute();
        await writeAudit(transaction, audit);
      }),
    moveProposal: (proposalId, from, to, audit) =>
      db.transaction().execute(async (transaction) => {
        const moved = await transaction
          .updateTable('proposals')
          .set({
            state: to.state,
            rolloutId: to.rolloutId,
            decidedBy: to.decidedBy,
            decidedAt: to.decidedAt,
          })
          .where('proposalId', '=', proposalId)
          .where('state', '=', from)
          .executeTakeFirst();
        if (Number(moved.numUpdatedRows) === 0) return false;
        await writeAudit(transaction, audit);
        return true;
      }),

    beginRollout: (opening, audit) =>
      db.transaction().execute(async (transaction) => {
        const { rolloutId, proposalId, approvedBy, at } = opening;
        const moved = await transaction
          .updateTable('proposals')
          .set({ state: 'approved', rolloutId, decidedBy: approvedBy, decidedAt: at })
          .where('proposalId', '=', proposalId)
          .where('state', '=', 'open')
          .executeTakeFirst();
        if (Number(moved.numUpdatedRows) === 0) return false;
        await transaction
          .insertInto('rollout_events')
          .values({ rolloutId, eventIndex: 0, at, event: JSON.stringify(opening) })
          .execute();
        await writeAudit(transaction, audit);
        return true;
      }),
    async appendEvent(rolloutId, eventIndex, { at, event }) {
      await db
        .insertInto('rollout_events')
        .values({ rolloutId, eventIndex, at, event: JSON.stringify(event) })
        .execute();
    },
    async unfinishedRolloutIds() {
      const rows = await db
        .selectFrom('rollout_events')
        .leftJoin('ledger', 'ledger.rolloutId', 'rollout_events.rolloutId')
        .select('rollout_events.rolloutId')
        .where('eventIndex', '=', 0)
        .where('ledger.rolloutId', 'is', null)
        .orderBy('at', 'asc')
        .execute();
      return rows.map((row) => row.rolloutId);
    },
    async rolloutIds(limit) {
      const rows = await db
        .selectFrom('rollout_events')
        .select('rolloutId')
        .where('eventIndex', '=', 0)
        .orderBy('at', 'desc')
        .orderBy('rolloutId', 'desc')
        .limit(limit)
        .execute();
      return rows.map((row) => row.rolloutId);
    },
    async rolloutEvents(rolloutId) {
      const rows = await db
        .selectFrom('rollout_events')
        .select(['at', 'event'])
        .where('rolloutId', '=', rolloutId)
        .orderBy('eventIndex', 'asc')
        .execute();
      return rows.map((row) => ({ at: row.at, event: stored(row.event) as RolloutEventRow['event'] }));
    },

    async saveLedgerEntry(entry) {
      const row = { endedAt: entry.endedAt, entry: JSON.stringify(entry) };
      await db
        .insertInto('ledger')
        .values({ rolloutId: entry.rolloutId, ...row })
        .onConflict((conflict) => conflict.column('rolloutId').doUpdateSet(row))
        .execute();
    },
    async ledger(limit) {
      const rows = await db
        .selectFrom('ledger')
        .select('entry')
        .orderBy('endedAt', 'desc')
        .limit(limit)
        .execute();
      return rows.map((row) => stored(row.entry) as LedgerEntry);
    },

    async killSwitch() {
      const row = await db.selectFrom('kill_switch').selectAll().executeTakeFirst();
      return row
        ? { isOn: row.isOn === 1, changedAt: row.changedAt, changedBy: row.changedBy, reason: row.reason }
        : { isOn: false, changedAt: null, changedBy: '', reason: '' };
    },
    saveKillSwitch: (killSwitch, audit) =>
      db.transaction().execute(async (transaction) => {
        const row = {
          isOn: killSwitch.isOn ? 1 : 0,
          changedAt: audit.at,
          changedBy: killSwitch.changedBy,
          reason: killSwitch.reason,
        };
        await transaction
          .insertInto('kill_switch')
          .values({ switchId: 1, ...row })
          .onConflict((conflict) => conflict.column('switchId').doUpdateSet(row))
          .execute();
        await writeAudit(transaction, audit);
      }),

    async livePaths() {
      const rows = await db.selectFrom('live_paths').selectAll().execute();
      return rows.map((row) => ({ ...row, path: stored(row.path) as LivePath['path'] }));
    },
    saveLivePath: (livePath, audit) =>
      db.transaction().execute(async (transaction) => {
        const row = {
          path: JSON.stringify(livePath.path),
          rolloutId: livePath.rolloutId,
          promotedAt: livePath.promotedAt,
        };
        await transaction
          .insertInto('live_paths')
          .values({ workerId: livePath.workerId, ...row })
          .onConflict((conflict) => conflict.column('workerId').doUpdateSet(row))
          .execute();
        await writeAudit(transaction, audit);
      }),

    audit: (limit) =>
      db
        .selectFrom('audit')
        .selectAll()
        .orderBy('at', 'desc')
        .orderBy('auditId', 'desc')
        .limit(limit)
        .execute(),
    close: () => db.destroy(),
  };
}

function proposalOf(row: ControlTables['proposals']): Proposal {
  const { proposalId, createdAt, state, fromPathId, toPathId, rolloutId, decidedBy, decidedAt } = row;
  return {
    ...(stored(row.draft) as ProposalDraft),
    proposalId,
    createdAt,
    state,
    fromPathId,
    toPathId,
    rolloutId,
    decidedBy,
    decidedAt,
  };
}

/** Paths in rows that are older than some of their settings get what was fixed then, wherever in a row they stand. */
const stored = (json: string): unknown =>
  JSON.parse(json, (_, value: unknown) => (isPath(value) ? completedPath(value) : value));

const isPath = (value: unknown): value is ExecutionPath =>
  typeof value === 'object' &&
  value !== null &&
  ['linear', 'attention', 'threadCount', 'tokenBudget'].every((setting) => setting in value);

function words(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replace(/\.$/, '');
}
