/**
 * The rows on this disk that ClickHouse has not acknowledged. Owned by the recorder: it appends rows to the open segment of
 * their table, seals it, sends it, removes it. A sealed segment never changes, and its name is its deduplication token, so
 * that the same rows under the same token can be sent again after any crash. A segment whose file failed goes on in memory.
 *
 *   open --append (write, fdatasync)--> sealed --acknowledged--> removed        found at the start of a process: sealed
 */
import { type FileHandle, mkdir, open, readdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { type ReadRecords, readRecords, recordOf } from './spool-records.ts';

export interface Segment<Table extends string> {
  readonly table: Table;
  /** Unique among all starts of all processes; the deduplication token of its rows. */
  readonly token: string;
  readonly openedAt: number;
  rowCount: number;
  /** Bytes of its file; 0 where it has none. */
  bytes: number;
  /** Null where its rows are on the disk alone. */
  rows: object[] | null;
  file: FileHandle | null;
  /** Why its file does not hold every row it has; '' while it does. */
  fault: string;
}

export interface SpoolOptions<Table extends string> {
  readonly folder: string;
  /** Unique to this start of the process. */
  readonly bootId: string;
  readonly tables: readonly Table[];
  readonly now: () => number;
}

const SUFFIX = '.rows';
const namePattern = /^(\d{14}-[\w-]+?)\.(\w+)\.rows$/;

export class Spool<Table extends string> {
  readonly #options: SpoolOptions<Table>;
  #segmentCount = 0;
  #bytes = 0;

  constructor(options: SpoolOptions<Table>) {
    this.#options = options;
  }

  /** Bytes of all its files. */
  get bytes(): number {
    return this.#bytes;
  }

  /** What earlier processes left, oldest first; their rows stay on the disk until they are sent. @throws Error of Node's */
  async recover(): Promise<Segment<Table>[]> {
    const { folder, tables } = this.#options;
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const segments: Segment<Table>[] = [];
    for (const name of (await readdir(folder)).sort()) {
      const [, token = '', tableName = ''] = namePattern.exec(name) ?? [];
      const table = tables.find((known) => known === tableName);
      if (table === undefined) continue;
      const { size } = await stat(join(folder, name));
      const { rows } = readRecords(await readFile(join(folder, name)));
      segments.push({
        table,
        token,
        openedAt: this.#options.now(),
        rowCount: rows.length,
        bytes: size,
        rows: null,
        file: null,
        fault: '',
      });
      this.#bytes += size;
    }
    return segments;
  }

  /** A segment that takes rows; in memory alone, with its fault, where no file can be made. */
  async openSegment(table: Table): Promise<Segment<Table>> {
    const { bootId, folder, now } = this.#options;
    this.#segmentCount += 1;
    const openedAt = now();
    const order = String(Math.floor(openedAt)).padStart(14, '0');
    const token = `${order}-${bootId}-${this.#segmentCount}`;
    const segment: Segment<Table> = {
      table,
      token,
      openedAt,
      rowCount: 0,
      bytes: 0,
      rows: [],
      file: null,
      fault: '',
    };
    try {
      segment.file = await open(this.#pathOf(segment), 'wx', 0o600);
      await syncFolder(folder);
    } catch (error) {
      await this.#giveUpFile(segment, error);
    }
    return segment;
  }

  /** The size that these rows take, to hold it against a limit before they are appended. */
  static encode(rows: readonly object[]): Buffer {
    return Buffer.from(rows.map((row) => recordOf(JSON.stringify(row))).join(''));
  }

  /**
   * Adds rows: on the disk when it resolves, or in memory alone with the segment's fault. After a failed write or fsync
   * the file takes no more: it is never trusted again.
   */
  async append(segment: Segment<Table>, rows: readonly object[], records: Buffer): Promise<void> {
    segment.rowCount += rows.length;
    for (const row of rows) segment.rows?.push(row);
    if (segment.file === null) return;
    try {
      for (let written = 0; written < records.length; ) {
        const { bytesWritten } = await segment.file.write(records, written);
        written += bytesWritten;
        segment.bytes += bytesWritten;
        this.#bytes += bytesWritten;
      }
      await segment.file.datasync();
    } catch (error) {
      await this.#giveUpFile(segment, error);
    }
  }

  async seal(segment: Segment<Table>): Promise<void> {
    const { file } = segment;
    segment.file = null;
    try {
      await file?.close();
    } catch (error) {
      await this.#giveUpFile(segment, error);
    }
  }

  /** The rows of its file. `fault`: why it cannot be read, '' where it can. */
  async read(segment: Segment<Table>): Promise<ReadRecords & { readonly fault: string }> {
    try {
      return { ...readRecords(await readFile(this.#pathOf(segment))), fault: '' };
    } catch (error) {
      return { rows: [], damagedCount: 0, fault: (error as Error).message };
    }
  }

  /** Returns why its file could not be removed, '' when it is gone. */
  async remove(segment: Segment<Table>): Promise<string> {
    try {
      await rm(this.#pathOf(segment), { force: true });
    } catch (error) {
      return (error as Error).message;
    }
    this.#bytes -= segment.bytes;
    segment.bytes = 0;
    return '';
  }

  #pathOf({ token, table }: Segment<Table>): string {
    return join(this.#options.folder, `${token}.${table}${SUFFIX}`);
  }

  /** What is in the file stays there: after a crash it is better than nothing. */
  async #giveUpFile(segment: Segment<Table>, error: unknown): Promise<void> {
    const { file } = segment;
    segment.file = null;
    segment.fault = (error as Error).message;
    try {
      await file?.close();
    } catch {
      // The disk's fault was told already; a second one of the same file tells nothing more.
    }
  }
}

/** So that a power cut does not lose the name of a file whose content was synced. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
