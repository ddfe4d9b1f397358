/**
 * Rows on their way to ClickHouse. The gateway calls `record` for every request and step; it never waits and never
 * throws. Within 50 ms a row is on this disk (spool.ts); a killed gateway loses no more than that, and the next start sends
 * what was left. One insert is under way at a time, oldest first; the same rows are sent again under the same token until
 * ClickHouse acknowledges them, so none is stored twice. Bounded on disk and in memory: over that the newest rows are
 * dropped and counted by table and reason.
 *
 *   record -> arrived --commit--> open segment (on disk) --seal--> sealed --insert--> acknowledged, removed
 *
 * A segment that ClickHouse refuses by its content (a value that is not of its column's type) is halved until the bad rows
 * stand alone; those are dropped, counted and logged. Everything else is the world's: retried with back-off.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { QueryError, type TelemetryClient } from '@variator/clickhouse/client';
import { encodeRow, type TableName, type TableRows } from '@variator/clickhouse/insert';
import { migrate } from '@variator/clickhouse/migrate';
import { type Segment, Spool } from './spool.ts';

export interface Recorder {
  record<Table extends RecordedTable>(table: Table, row: TableRows[Table]): void;
  /** Rows given up since the start, for whatever reason. */
  droppedRowCount(): number;
  /** The same by `table/reason`; reasons: spoolFull, memoryFull, refused, damaged, closed. */
  droppedRowCounts(): Readonly<Record<string, number>>;
  /** Rows that ClickHouse has not acknowledged yet. */
  pendingRowCount(): number;
  /** '' while ClickHouse takes rows and the disk keeps them; otherwise what is wrong, for people. */
  fault(): string;
  /**
   * Puts what arrived on the disk and sends for at most so long; what is left on the disk is sent by the next start.
   * `unsentRowCount`: rows that were nowhere but in memory. Rows recorded later are dropped.
   */
  close(deadlineMs: number): Promise<{ readonly unsentRowCount: number; readonly keptRowCount: number }>;
}

export type RecordedTable = Extract<TableName, 'requests' | 'steps'>;

export interface RecorderOptions {
  readonly client: TelemetryClient;
  /** Where the spool lies; nobody else writes there. */
  readonly folder: string;
  /** Unique to this start of the process; the tokens hold it. */
  readonly bootId: string;
  /** Run before the first insert and whenever ClickHouse is back after a failure. */
  readonly migrate?: () => Promise<unknown>;
  /** A segment is sealed, and sent, this long after its first row. */
  readonly flushMs?: number;
  /** Most that the spool's files may take. */
  readonly maxSpoolBytes?: number;
  /** Rows held in memory: all that are not on the disk, and a part of those that are. */
  readonly maxBufferedRows?: number;
  readonly log: (line: string) => void;
}

type RowSegment = Segment<RecordedTable>;
type DropReason = 'spoolFull' | 'memoryFull' | 'refused' | 'damaged' | 'closed';

const tables: readonly RecordedTable[] = ['requests', 'steps'];
const MOST_ROWS_PER_SEGMENT = 10_000;
/** A killed process loses the rows of this long at most. */
const COMMIT_MS = 50;
const LEAST_PAUSE_MS = 100;
const MOST_PAUSE_MS = 5000;
const DEFAULT_SPOOL_BYTES = 1024 ** 3;
/** ClickHouse's codes for values that cannot be parsed or converted: these rows it can never take. */
const refusedByContent = new Set([6, 26, 27, 38, 41, 53, 69, 70, 72, 117, 131, 321, 349].map(String));

export function createRecorder(options: RecorderOptions): Recorder {
  const { client, bootId, folder, log } = options;
  const flushMs = options.flushMs ?? 500;
  const maxBufferedRows = options.maxBufferedRows ?? 200_000;
  const maxSpoolBytes = options.maxSpoolBytes ?? DEFAULT_SPOOL_BYTES;
  const runMigrations = options.migrate ?? (() => migrate(client));
  const spool = new Spool<RecordedTable>({ folder, bootId, tables, now: Date.now });

  const arrived: Record<RecordedTable, object[]> = { requests: [], steps: [] };
  const open: Record<RecordedTable, RowSegment | null> = { requests: null, steps: null };
  /** Oldest first; the first is under way. */
  const sealed: RowSegment[] = [];
  const dropped = new Map<string, number>();
  let arrivedRowCount = 0;
  let segmentRowCount = 0;
  let memoryRowCount = 0;
  let storeFault = '';
  let diskFault = '';
  let isMigrated = false;
  let isClosed = false;
  /** Aborted by close: ends the pause under way, so that what waits goes at once. */
  const closing = new AbortController();
  const givenUp = new AbortController();
  /** Woken when a segment was sealed. */
  let wakeSender: () => void = () => {};

  function drop(table: RecordedTable, count: number, reason: DropReason, why: string): void {
    if (count === 0) return;
    if (dropped.size === 0) log(`telemetry: rows are being dropped: ${why}`);
    const key = `${table}/${reason}`;
    dropped.set(key, (dropped.get(key) ?? 0) + count);
  }

  function noteDisk(fault: string): void {
    if (fault !== '' && diskFault === '') log(`telemetry: rows are kept in memory alone: ${fault}`);
    if (fault === '' && diskFault !== '') log('telemetry: rows are on the disk again');
    diskFault = fault;
  }

  /** Puts what arrived for a table into its open segment, on disk where the disk takes it. */
  async function commit(table: RecordedTable): Promise<void> {
    const rows = arrived[table].splice(0, MOST_ROWS_PER_SEGMENT);
    if (rows.length === 0) return;
    arrivedRowCount -= rows.length;
    const records = Spool.encode(rows);
    if (spool.bytes + records.length > maxSpoolBytes) {
      memoryRowCount -= rows.length;
      drop(table, rows.length, 'spoolFull', `the spool holds ${spool.bytes} bytes already`);
      return;
    }
    const segment = open[table] ?? (await spool.openSegment(table));
    open[table] = segment;
    segmentRowCount += rows.length;
    await spool.append(segment, rows, records);
    noteDisk(segment.fault);
    if (segment.rowCount >= MOST_ROWS_PER_SEGMENT) await seal(table);
  }

  async function seal(table: RecordedTable): Promise<void> {
    const segment = open[table];
    if (segment === null) return;
    open[table] = null;
    await spool.seal(segment);
    noteDisk(segment.fault);
    // A long outage must not fill the memory: what is on the disk is read back when its turn comes.
    if (segment.fault === '' && memoryRowCount > maxBufferedRows / 4) forget(segment);
    sealed.push(segment);
    wakeSender();
  }

  function forget(segment: RowSegment): void {
    if (segment.rows === null) return;
    memoryRowCount -= segment.rows.length;
    segment.rows = null;
  }

  async function commitAll(): Promise<void> {
    for (const table of tables) {
      do await commit(table);
      while (arrived[table].length >= MOST_ROWS_PER_SEGMENT);
      const segment = open[table];
      if (segment !== null && (isClosed || Date.now() - segment.openedAt >= flushMs)) await seal(table);
    }
  }

  /** Stores the rows, those that ClickHouse can take. Returns how many it cannot. @throws Error of the world */
  async function insert(table: RecordedTable, rows: readonly object[], token: string): Promise<number> {
    if (rows.length === 0) return 0;
    try {
      await client.insert(table, rows, token);
      return 0;
    } catch (error) {
      // Times spread over too many partitions share their code with too many parts, which passes.
      const isRefused =
        error instanceof QueryError &&
        (refusedByContent.has(error.code) || error.message.includes('Too many partitions'));
      if (!isRefused) throw error;
      if (rows.length === 1) {
        log(`telemetry: ClickHouse refused a row of ${table}: ${error.message.slice(0, 300)}`);
        return 1;
      }
    }
    const half = Math.ceil(rows.length / 2);
    return (
      (await insert(table, rows.slice(0, half), `${token}.0`)) +
      (await insert(table, rows.slice(half), `${token}.1`))
    );
  }

  /** What can be read of it; what cannot is counted, and never stops the rows behind it. */
  async function rowsOf(segment: RowSegment): Promise<readonly object[]> {
    if (segment.rows !== null) return segment.rows;
    const { rows, damagedCount, fault } = await spool.read(segment);
    const lostCount = fault === '' ? damagedCount : segment.rowCount;
    drop(segment.table, lostCount, 'damaged', fault === '' ? 'the spool holds damaged lines' : fault);
    return rows;
  }

  /** True when the first sealed segment is settled; false when it is to be sent again. */
  async function send(segment: RowSegment): Promise<boolean> {
    try {
      if (!isMigrated) {
        await runMigrations();
        isMigrated = true;
      }
      const rows = await rowsOf(segment);
      const refusedCount = await insert(segment.table, rows, `${segment.token}.${segment.table}`);
      drop(segment.table, refusedCount, 'refused', 'ClickHouse cannot take them');
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error);
      if (storeFault === '') log(`telemetry: rows wait: ${problem.slice(0, 300)}`);
      storeFault = problem;
      isMigrated = false;
      return false;
    }
    sealed.shift();
    segmentRowCount -= segment.rowCount;
    forget(segment);
    // Left behind, it would be sent again by the next start, under the same token.
    noteDisk(await spool.remove(segment));
    if (storeFault !== '') log('telemetry: ClickHouse takes rows again');
    storeFault = '';
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

  async function recover(): Promise<void> {
    try {
      const found = await spool.recover();
      sealed.unshift(...found);
      const rowCount = found.reduce((sum, segment) => sum + segment.rowCount, 0);
      segmentRowCount += rowCount;
      if (rowCount > 0) log(`telemetry: ${rowCount} rows of an earlier start wait on the spool`);
    } catch (error) {
      noteDisk((error as Error).message);
    }
  }

  async function runCommits(): Promise<void> {
    for (;;) {
      const isLast = isClosed;
      await commitAll();
      if (isLast && arrivedRowCount === 0) return;
      await pause(isClosed ? 0 : COMMIT_MS);
    }
  }

  async function runInserts(): Promise<void> {
    let pauseMs = LEAST_PAUSE_MS;
    for (;;) {
      const segment = sealed[0];
      if (segment === undefined) {
        if (isCommitted) return;
        await new Promise<void>((resolve) => {
          wakeSender = resolve;
        });
        continue;
      }
      if (givenUp.signal.aborted) return;
      if (await send(segment)) {
        pauseMs = LEAST_PAUSE_MS;
      } else {
        await pause(pauseMs);
        pauseMs = Math.min(pauseMs * 2, MOST_PAUSE_MS);
      }
    }
  }

  /** True once everything that was recorded before close is in a segment. */
  let isCommitted = false;
  const committed = recover().then(async () => {
    wakeSender();
    await runCommits();
    isCommitted = true;
    wakeSender();
  });
  const inserted = runInserts();

  return {
    record(table, row) {
      if (isClosed) return drop(table, 1, 'closed', 'the recorder is closed');
      if (memoryRowCount >= maxBufferedRows) {
        return drop(table, 1, 'memoryFull', `${maxBufferedRows} rows wait in memory already`);
      }
      memoryRowCount += 1;
      arrivedRowCount += 1;
      arrived[table].push(encodeRow(table, row));
    },
    droppedRowCount: () => [...dropped.values()].reduce((sum, count) => sum + count, 0),
    droppedRowCounts: () => Object.fromEntries(dropped),
    pendingRowCount: () => arrivedRowCount + segmentRowCount,
    fault() {
      const waiting = `${arrivedRowCount + segmentRowCount} rows wait`;
      if (storeFault !== '') return `${storeFault} (${waiting})`;
      return diskFault === '' ? '' : `rows cannot be kept on the disk: ${diskFault}`;
    },
    async close(deadlineMs) {
      isClosed = true;
      closing.abort();
      const timer = setTimeout(() => givenUp.abort(), deadlineMs);
      const aborted = new Promise<void>((done) => {
        givenUp.signal.addEventListener('abort', () => done(), { once: true });
      });
      await Promise.race([Promise.all([committed, inserted]), aborted]);
      clearTimeout(timer);
      const kept = sealed.filter((segment) => segment.fault === '');
      const keptRowCount = kept.reduce((sum, segment) => sum + segment.rowCount, 0);
      const unsentRowCount = arrivedRowCount + segmentRowCount - keptRowCount;
      for (const segment of sealed) {
        if (segment.fault !== '')
          drop(segment.table, segment.rowCount, 'closed', 'they were in memory alone at the end');
      }
      return { unsentRowCount, keptRowCount };
    },
  };
}

function ignoreAbort(error: unknown): void {
  if (!(error instanceof Error) || error.name !== 'AbortError') throw error;
}
