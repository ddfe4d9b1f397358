/**
 * The control database's tables and its forward-only migrations. Called by control-store.ts when the file is opened.
 * Keeps to the SQL that SQLite and Postgres share; JSON is text, times are epoch milliseconds. An applied entry of
 * `migrations` is never edited: a change is a new entry.
 */
import type { Kysely } from 'kysely';
import { ControlError } from './control-error.ts';
import type { ProposalState } from './control-types.ts';

export interface ControlTables {
  schema_migrations: { version: number; appliedAt: number };
  /** One row: what people changed, as JSON (PolicyChange). */
  policy: { policyId: number; changes: string; changedAt: number; changedBy: string };
  proposals: {
    proposalId: string;
    createdAt: number;
    createdBy: string;
    state: ProposalState;
    workerId: string;
    fromPathId: string;
    toPathId: string;
    rolloutId: string;
    decidedBy: string;
    decidedAt: number | null;
    /** ProposalDraft as JSON. */
    draft: string;
  };
  /** A rollout is the fold of its rows in order of eventIndex. */
  rollout_events: { rolloutId: string; eventIndex: number; at: number; event: string };
  /** LedgerEntry as JSON; one row a rollout, its state replaced by a later rollback. */
  ledger: { rolloutId: string; endedAt: number; entry: string };
  /** Append-only; a repeated auditId is the same deed and is not written twice. */
  audit: { auditId: string; at: number; who: string; what: string; subject: string; details: string };
  /** One row. */
  kill_switch: { switchId: number; isOn: number; changedAt: number; changedBy: string; reason: string };
  /** The last promoted path of each worker. */
  live_paths: { workerId: string; path: string; rolloutId: string; promotedAt: number };
}

const migrations: readonly ((db: Kysely<ControlTables>) => Promise<void>)[] = [
  async (db) => {
    await db.schema
      .createTable('policy')
      .addColumn('policyId', 'integer', (column) => column.primaryKey())
      .addColumn('changes', 'text', (column) => column.notNull())
      .addColumn('changedAt', 'bigint', (column) => column.notNull())
      .addColumn('changedBy', 'text', (column) => column.notNull())
      .execute();
    await db.schema
      .createTable('proposals')
      .addColumn('proposalId', 'text', (column) => column.primaryKey())
      .addColumn('createdAt', 'bigint', (column) => column.notNull())
      .addColumn('createdBy', 'text', (column) => column.notNull())
      .addColumn('state', 'text', (column) => column.notNull())
      .addColumn('workerId', 'text', (column) => column.notNull())
      .addColumn('fromPathId', 'text', (column) => column.notNull())
      .addColumn('toPathId', 'text', (column) => column.notNull())
      .addColumn('rolloutId', 'text', (column) => column.notNull())
      .addColumn('decidedBy', 'text', (column) => column.notNull())
      .addColumn('decidedAt', 'bigint')
      .addColumn('draft', 'text', (column) => column.notNull())
      .execute();
    await db.schema.createIndex('proposals_newest').on('proposals').column('createdAt').execute();
    await db.schema
      .createTable('rollout_events')
      .addColumn('rolloutId', 'text', (column) => column.notNull())
      .addColumn('eventIndex', 'integer', (column) => column.notNull())
      .addColumn('at', 'bigint', (column) => column.notNull())
      .addColumn('event', 'text', (column) => column.notNull())
      .addPrimaryKeyConstraint('rollout_events_key', ['rolloutId', 'eventIndex'])
      .execute();
    await db.schema
      .createTable('ledger')
      .addColumn('rolloutId', 'text', (column) => column.primaryKey())
      .addColumn('endedAt', 'bigint', (column) => column.notNull())
      .addColumn('entry', 'text', (column) => column.notNull())
      .execute();
    await db.schema
      .createTable('audit')
      .addColumn('auditId', 'text', (column) => column.primaryKey())
      .addColumn('at', 'bigint', (column) => column.notNull())
      .addColumn('who', 'text', (column) => column.notNull())
      .addColumn('what', 'text', (column) => column.notNull())
      .addColumn('subject', 'text', (column) => column.notNull())
      .addColumn('details', 'text', (column) => column.notNull())
      .execute();
    await db.schema
      .createTable('kill_switch')
      .addColumn('switchId', 'integer', (column) => column.primaryKey())
      .addColumn('isOn', 'integer', (column) => column.notNull())
      .addColumn('changedAt', 'bigint', (column) => column.notNull())
      .addColumn('changedBy', 'text', (column) => column.notNull())
      .addColumn('reason', 'text', (column) => column.notNull())
      .execute();
    await db.schema
      .createTable('live_paths')
      .addColumn('workerId', 'text', (column) => column.primaryKey())
      .addColumn('path', 'text', (column) => column.notNull())
      .addColumn('rolloutId', 'text', (column) => column.notNull())
      .addColumn('promotedAt', 'bigint', (column) => column.notNull())
      .execute();
  },
];

/** @throws ControlError where the file was written by a newer Variator */
export async function migrateControl(db: Kysely<ControlTables>, now: number): Promise<void> {
  await db.schema
    .createTable('schema_migrations')
    .ifNotExists()
    .addColumn('version', 'integer', (column) => column.primaryKey())
    .addColumn('appliedAt', 'bigint', (column) => column.notNull())
    .execute();
  const { latest } = await db
    .selectFrom('schema_migrations')
    .select(({ fn }) => fn.max('version').as('latest'))
    .executeTakeFirstOrThrow();
  const appliedCount = latest ?? 0;
  if (appliedCount > migrations.length) {
    throw new ControlError(
      'refused',
      `The control database is of version ${appliedCount}, but this Variator knows only up to ${migrations.length}; start the newer Variator, or another data folder.`,
    );
  }
  for (const [index, migrate] of migrations.entries()) {
    if (index < appliedCount) continue;
    await db.transaction().execute(async (transaction) => {
      await migrate(transaction);
      await transaction
        .insertInto('schema_migrations')
        .values({ version: index + 1, appliedAt: now })
        .execute();
    });
  }
}
