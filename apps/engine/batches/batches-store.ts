/**
 * The database of files and batches: Kysely over a SQLite file (libsql). Called by open-batches.ts alone, which owns it;
 * each method is one question or one change. Decides nothing. A change is on the disk when it returns: clients were told.
 * An applied entry of `migrations` is never edited: a change is a new entry.
 */
import { type Generated, Kysely, type Selectable, SqliteDialect } from 'kysely';
import { openSqliteFile } from '../sqlite-file.ts';
import type { Batch, FilePurpose, StoredFile } from './batch.ts';

/** One page of a list: what comes after the thing with this id. */
export interface PageQuery {
  readonly limit: number;
  /** null: from the start. */
  readonly after: string | null;
  readonly order: 'asc' | 'desc';
}

export interface BatchesStore {
  /** Those that have not expired. */
  files(tenant: string, purpose: FilePurpose | null, now: number, page: PageQuery): Promise<StoredFile[]>;
  file(tenant: string, fileId: string): Promise<StoredFile | null>;
  fileIds(): Promise<string[]>;
  filesExpiredBy(now: number): Promise<StoredFile[]>;
  addFile(file: StoredFile): Promise<void>;
  removeFile(fileId: string): Promise<void>;
  batches(tenant: string, page: PageQuery): Promise<Batch[]>;
  batch(tenant: string, batchId: string): Promise<Batch | null>;
  /** Those that have not ended, oldest first. */
  unfinishedBatches(): Promise<Batch[]>;
  addBatch(batch: Batch): Promise<void>;
  /** The batch and the files that its end made, all or nothing. */
  saveBatch(batch: Batch, isEnded: boolean, madeFiles: readonly StoredFile[]): Promise<void>;
  removeBatchesEndedBefore(createdBefore: number): Promise<void>;
  close(): Promise<void>;
}

/** The database cannot be used; the message names the file and what is wrong. */
export class BatchesStoreError extends Error {
  override readonly name = 'BatchesStoreError';
}

interface Tables {
  schema_migrations: { version: number; appliedAt: number };
  /** `place` counts up: the order of lists, since two may come in the same millisecond. */
  files: {
    place: Generated<number>;
    fileId: string;
    tenant: string;
    purpose: FilePurpose;
    filename: string;
    bytes: number;
    createdAt: number;
    expiresAt: number;
  };
  batches: {
    place: Generated<number>;
    batchId: string;
    tenant: string;
    createdAt: number;
    isEnded: number;
    /** Batch as JSON. */
    batch: string;
  };
}

const migrations: readonly ((db: Kysely<Tables>) => Promise<void>)[] = [
  async (db) => {
    await db.schema
      .createTable('files')
      .addColumn('place', 'integer', (column) => column.primaryKey().autoIncrement())
      .addColumn('fileId', 'text', (column) => column.notNull().unique())
      .addColumn('tenant', 'text', (column) => column.notNull())
      .addColumn('purpose', 'text', (column) => column.notNull())
      .addColumn('filename', 'text', (column) => column.notNull())
      .addColumn('bytes', 'bigint', (column) => column.notNull())
      .addColumn('createdAt', 'bigint', (column) => column.notNull())
      .addColumn('expiresAt', 'bigint', (column) => column.notNull())
      .execute();
    await db.schema.createIndex('files_of_tenant').on('files').columns(['tenant', 'place']).execute();
    await db.schema.createIndex('files_by_expiry').on('files').column('expiresAt').execute();
    await db.schema
      .createTable('batches')
      .addColumn('place', 'integer', (column) => column.primaryKey().autoIncrement())
      .addColumn('batchId', 'text', (column) => column.notNull().unique())
      .addColumn('tenant', 'text', (column) => column.notNull())
      .addColumn('createdAt', 'bigint', (column) => column.notNull())
      .addColumn('isEnded', 'integer', (column) => column.notNull())
      .addColumn('batch', 'text', (column) => column.notNull())
      .execute();
    await db.schema.createIndex('batches_of_tenant').on('batches').columns(['tenant', 'place']).execute();
    await db.schema.createIndex('batches_unfinished').on('batches').column('isEnded').execute();
  },
];

/** @throws BatchesStoreError */
export async function openBatchesStore(file: string, now: number): Promise<BatchesStore> {
  try {
    const db = new Kysely<Tables>({ dialect: new SqliteDialect({ database: openSqliteFile(file, 'FULL') }) });
    await migrateBatches(db, now);
    return createStore(db);
  } catch (error) {
    if (error instanceof BatchesStoreError) throw error;
    const why = (error instanceof Error ? error.message : String(error)).replace(/\.$/, '');
    throw new BatchesStoreError(`The database of batches ${file} cannot be used: ${why}.`, { cause: error });
  }
}

function createStore(db: Kysely<Tables>): BatchesStore {
  const fileOf = ({ place: _place, ...file }: Selectable<Tables['files']>): StoredFile => file;
  const batchOf = (row: { batch: string }): Batch => JSON.parse(row.batch) as Batch;
  return {
    async files(tenant, purpose, now, { limit, after, order }) {
      let query = db
        .selectFrom('files')
        .selectAll()
        .where('tenant', '=', tenant)
        .where('expiresAt', '>', now);
      if (purpose !== null) query = query.where('purpose', '=', purpose);
      if (after !== null) {
        const place = db
          .selectFrom('files')
          .select('place')
          .where('fileId', '=', after)
          .where('tenant', '=', tenant);
        query = query.where('place', order === 'asc' ? '>' : '<', place);
      }
      return (await query.orderBy('place', order).limit(limit).execute()).map(fileOf);
    },
    async file(tenant, fileId) {
      const row = await db
        .selectFrom('files')
        .selectAll()
        .where('fileId', '=', fileId)
        .where('tenant', '=', tenant)
        .executeTakeFirst();
      return row ? fileOf(row) : null;
    },
    fileIds: async () =>
      (await db.selectFrom('files').select('fileId').execute()).map(({ fileId }) => fileId),
    filesExpiredBy: async (now) =>
      (await db.selectFrom('files').selectAll().where('expiresAt', '<=', now).limit(1000).execute()).map(
        fileOf,
      ),
    async addFile(added) {
      await db.insertInto('files').values(added).execute();
    },
    async removeFile(fileId) {
      await db.deleteFrom('files').where('fileId', '=', fileId).execute();
    },
    async batches(tenant, { limit, after, order }) {
      let query = db.selectFrom('batches').select('batch').where('tenant', '=', tenant);
      if (after !== null) {
        const place = db
          .selectFrom('batches')
          .select('place')
          .where('batchId', '=', after)
          .where('tenant', '=', tenant);
        query = query.where('place', order === 'asc' ? '>' : '<', place);
      }
      return (await query.orderBy('place', order).limit(limit).execute()).map(batchOf);
    },
    async batch(tenant, batchId) {
      const row = await db
        .selectFrom('batches')
        .select('batch')
        .where('batchId', '=', batchId)
        .where('tenant', '=', tenant)
        .executeTakeFirst();
      return row ? batchOf(row) : null;
    },
    unfinishedBatches: async () =>
      (
        await db
          .selectFrom('batches')
          .select('batch')
          .where('isEnded', '=', 0)
          .orderBy('place', 'asc')
          .execute()
      ).map(batchOf),
    async addBatch(batch) {
      const { batchId, tenant, createdAt } = batch;
      await db
        .insertInto('batches')
        .values({ batchId, tenant, createdAt, isEnded: 0, batch: JSON.stringify(batch) })
        .execute();
    },
    saveBatch: (batch, isEnded, madeFiles) =>
      db.transaction().execute(async (transaction) => {
        await transaction
          .updateTable('batches')
          .set({ isEnded: isEnded ? 1 : 0, batch: JSON.stringify(batch) })
          .where('batchId', '=', batch.batchId)
          .execute();
        for (const made of madeFiles) await transaction.insertInto('files').values(made).execute();
      }),
    async removeBatchesEndedBefore(createdBefore) {
      await db
        .deleteFrom('batches')
        .where('isEnded', '=', 1)
        .where('createdAt', '<', createdBefore)
        .execute();
    },
    close: () => db.destroy(),
  };
}

async function migrateBatches(db: Kysely<Tables>, now: number): Promise<void> {
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
    throw new BatchesStoreError(
      `The database of batches is of version ${appliedCount}, but this Variator knows only up to ${migrations.length}; start the newer Variator, or another data folder.`,
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
