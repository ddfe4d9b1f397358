/**
 * Rows on their way to ClickHouse. The gateway calls `record` for every request and step; it never waits and never
 * throws. One insert is under way at a time, in the order of arrival; the same rows are sent again under the same token
 * until ClickHouse acknowledges them, so none is stored twice. Bounded: over the limit the newest rows are dropped and
 * counted. It keeps nothing on disk: rows that wait when the process is killed are lost.
 *
 *   record -> waiting rows of a table -> sealed batch (rows and token never change again) -> acknowledged | refused
 *
 * A batch that ClickHouse refuses by its content (a value that is not of its column's type) is halved until the bad rows
 * stand alone; those are dropped, counted and logged. Everything else is the world's: retried with back-off.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { QueryError, type TelemetryClient } from '@variator/clickhouse/client';
import { insertRows, type TableName, type TableRows } from '@variator/clickhouse/insert';
import { migrate } from '@variator/clickhouse/migrate';

export interface Recorder {
  record<Table extends RecordedTable>(table: Table, row: TableRows[Table]): void;
  /** Rows given up since the start: over the bound, refused, or unsent at close. */
  droppedRowCount(): number;
  pendingRowCount(): number;
  /** '' while ClickHouse takes rows; otherwise what is wrong, for people. */
  fault(): string;
  /** Sends what waits, for at most so long. Rows recorded later are dropped. */
  close(deadlineMs: number): Promise<{ readonly unsentRowCount: number }>;
}

export type RecordedTable = Extract<TableName, 'requests' | 'steps'>;

export interface RecorderOptions {
  readonly client: TelemetryClient;
  /** Unique to this start of the process; the tokens begin with it. */
  readonly bootId: string;
  /** Run before the first insert and whenever ClickHouse is back after a failure. */
  readonly migrate?: () => Promise<unknown>;
  readonly flushMs?: number;
  readonly maxBufferedRows?: number;
  readonly log: (line: string) => void;
}

interface SealedBatch {
  readonly table: RecordedTable;
  readonly rows: readonly TableRows[RecordedTable][];
  readonly token: string;
}

const tables: readonly RecordedTable[] = ['requests', 'steps'];
const MOST_ROWS_PER_BATCH = 10_000;
const LEAST_PAUSE_MS = 100;
const MOST_PAUSE_MS = 5000;
/** ClickHouse's codes for values that cannot be parsed or converted: these rows it can never take. */
const refusedByContent = new Set([6, 26, 27, 38, 41, 53, 69, 70, 72, 117, 131, 321, 349].map(String));

export function createRecorder(options: RecorderOptions): Recorder {
  const { client, bootId, log } = options;
  const flushMs = options.flushMs ?? 500;
  const maxBufferedRows = options.maxBufferedRows ?? 200_000;
  const runMigrations = options.migrate ?? (() => migrate(client));

  const waiting: Record<RecordedTable, TableRows[RecordedTable][]> = { requests: [], steps: [] };
  /** Sealed and not yet acknowledged, in order; the first is under way. */
  const sealed: SealedBatch[] = [];
  let pendingRowCount = 0;
  let droppedRowCount = 0;
  let sequence = 0;
  let fault = '';
  let isMigrated = false;
  let isClosed = false;
  /** Aborted by close: ends the pause under way, so that what waits goes at once. */
  const closing = new AbortController();
  const givenUp = new AbortController();

  function drop(count: number, why: string): void {
    if (droppedRowCount === 0) log(`telemetry: rows are being dropped: ${why}`);
    droppedRowCount += count;
  }

  /** At most one batch a table: what else waits is the next flush's. */
  function seal(): void {
    for (const table of tables) {
      const rows = waiting[table].splice(0, MOST_ROWS_PER_BATCH);
      if (rows.length === 0) continue;
      sequence += 1;
      sealed.push({ table, rows, token: `${bootId}:${table}:${sequence}` });
    }
  }

  /** True when the first sealed batch is settled; false when it is to be sent again. */
  async function send(batch: SealedBatch): Promise<boolean> {
    try {
      if (!isMigrated) {
        await runMigrations();
        isMigrated = true;
      }
      await insertRows(client, batch.table, batch.rows, batch.token);
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error);
      // Times spread over too many partitions share their code with too many parts, which passes.
      const isRefused =
        error instanceof QueryError &&
        (refusedByContent.has(error.code) || error.message.includes('Too many partitions'));
      if (isMigrated && isRefused) {
        sealed.shift();
        if (batch.rows.length === 1) {
          pendingRowCount -= 1;
          drop(1, problem);
          log(`telemetry: ClickHouse refused a row of ${batch.table}: ${problem.slice(0, 300)}`);
        } else {
          const half = Math.ceil(batch.rows.length / 2);
          sealed.unshift(
            { table: batch.table, rows: batch.rows.slice(0, half), token: `${batch.token}.0` },
            { table: batch.table, rows: batch.rows.slice(half), token: `${batch.token}.1` },
          );
        }
        return true;
      }
      if (fault === '') log(`telemetry: rows wait: ${problem.slice(0, 300)}`);
      fault = problem;
      isMigrated = false;
      return false;
    }
    sealed.shift();
    pendingRowCount -= batch.rows.length;
    if (fault !== '') log('telemetry: ClickHouse takes rows again');
    fault = '';
    return true;
  }

  /** Does not keep the process alive, and ends early when the recorder closes. */
  async function pause(ms: number): Promise<void> {
    if (isClosed) {
      // A silent ClickHouse must not be asked in a spin, not even at the end.
      await sleep(Math.min(ms, LEAST_PAUSE_MS), undefined, { signal: givenUp.signal }).catch(ignoreAbort);
    } else {
      await sleep(ms, undefined, { ref: false, signal: closing.signal }).catch(ignoreAbort);
    }
  }

  async function run(): Promise<void> {
    let pauseMs = LEAST_PAUSE_MS;
    for (;;) {
      // A full batch says that more waits than one flush takes.
      const isBehind = tables.some((table) => waiting[table].length >= MOST_ROWS_PER_BATCH);
      if (!isBehind && !isClosed) await pause(flushMs);
      seal();
      if (sealed.length === 0 && isClosed) return;
      for (let batch = sealed[0]; batch !== undefined; batch = sealed[0]) {
        if (givenUp.signal.aborted) return;
        if (await send(batch)) {
          pauseMs = LEAST_PAUSE_MS;
        } else {
          await pause(pauseMs);
          pauseMs = Math.min(pauseMs * 2, MOST_PAUSE_MS);
        }
      }
    }
  }

  const loop = run();

  return {
    record(table, row) {
      if (isClosed || pendingRowCount >= maxBufferedRows) {
        drop(1, isClosed ? 'the recorder is closed' : `${maxBufferedRows} rows wait already`);
        return;
      }
      pendingRowCount += 1;
      waiting[table].push(row);
    },
    droppedRowCount: () => droppedRowCount,
    pendingRowCount: () => pendingRowCount,
    fault: () => (fault === '' ? '' : `${fault} (${pendingRowCount} rows wait)`),
    async close(deadlineMs) {
      isClosed = true;
      closing.abort();
      const timer = setTimeout(() => givenUp.abort(), deadlineMs);
      const aborted = new Promise<void>((done) => {
        givenUp.signal.addEventListener('abort', () => done(), { once: true });
      });
      await Promise.race([loop, aborted]);
      clearTimeout(timer);
      const unsentRowCount = pendingRowCount;
      if (unsentRowCount > 0) drop(unsentRowCount, 'ClickHouse did not take them before the end');
      return { unsentRowCount };
    },
  };
}

function ignoreAbort(error: unknown): void {
  if (!(error instanceof Error) || error.name !== 'AbortError') throw error;
}
