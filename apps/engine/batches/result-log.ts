/**
 * The results of one batch, appended as its lines end. A result counts once it is on the disk: `append` resolves after an
 * fsync, which all that wait share. Opening it again finds every result that was acknowledged and cuts off a torn tail, so
 * that an unfinished line runs again and a finished one never does. Written by one batch run, read by assemble-output.ts.
 *
 *   one record a line:  crc32(rest) SP index SP y|n SP prompt,cached,completion tokens SP json LF
 */
import { type FileHandle, open, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { crc32 } from 'node:zlib';
import { type LineCounts, type LineUsage, noUsage } from './batch.ts';
import { inputLines } from './input-lines.ts';
import { syncFolder } from './sync-folder.ts';

export interface LineResult {
  readonly index: number;
  /** False: its place is in the error file. */
  readonly isAnswered: boolean;
  readonly usage: LineUsage;
  /** The line of the output or error file, without its end. */
  readonly json: Buffer;
}

interface Waiting {
  readonly result: LineResult;
  readonly record: Buffer;
  resolve(): void;
  reject(error: unknown): void;
}

/** An answer is bounded by the context, not by this: it only keeps a damaged file from being read as one line. */
const MOST_RECORD_BYTES = 256 * 1024 * 1024;
const MOST_GROUP_BYTES = 4 * 1024 * 1024;
const READ_AHEAD_BYTES = 1024 * 1024;

const NONE = 0;
const ANSWERED = 1;
const REFUSED = 2;

export class ResultLog {
  readonly #path: string;
  #file: FileHandle;
  /** What is on the disk for certain; what lies behind it is a torn tail. */
  #syncedBytes = 0;
  readonly #kinds: Uint8Array;
  readonly #offsets: Float64Array;
  readonly #lengths: Float64Array;
  #completed = 0;
  #failed = 0;
  #usage: LineUsage = noUsage;
  #waiting: Waiting[] = [];
  #writing: Promise<void> | null = null;
  /** What a failed write or fsync left behind is cleared away before the next record. */
  #fault: 'tornTail' | 'failedSync' | null = null;

  private constructor(path: string, file: FileHandle, lineCount: number) {
    this.#path = path;
    this.#file = file;
    this.#kinds = new Uint8Array(lineCount);
    this.#offsets = new Float64Array(lineCount);
    this.#lengths = new Float64Array(lineCount);
  }

  /** @throws Error of Node's */
  static async open(path: string, lineCount: number): Promise<ResultLog> {
    const file = await open(path, 'a+', 0o600);
    const log = new ResultLog(path, file, lineCount);
    try {
      await log.#recover();
    } catch (error) {
      await file.close();
      throw error;
    }
    return log;
  }

  has(index: number): boolean {
    return this.#kinds[index] !== NONE;
  }

  counts(): LineCounts {
    return { total: this.#kinds.length, completed: this.#completed, failed: this.#failed };
  }

  usage(): LineUsage {
    return this.#usage;
  }

  /**
   * Resolves when the result is on the disk and counts. Of two results for a line the first counts.
   * @throws Error of Node's, e.g. with code ENOSPC; then it does not count and may be appended again
   */
  append(result: LineResult): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ result, record: recordOf(result), resolve, reject });
      this.#writing ??= this.#writeAll();
    });
  }

  /** The results in the order of their lines; null where a line has none. */
  async *inOrder(): AsyncGenerator<{ readonly isAnswered: boolean; readonly json: Buffer } | null> {
    let held: Buffer = Buffer.alloc(0);
    let heldFrom = 0;
    for (let index = 0; index < this.#kinds.length; index += 1) {
      const kind = this.#kinds[index];
      if (kind === NONE) {
        yield null;
        continue;
      }
      const [offset, length] = [this.#offsets[index] ?? 0, this.#lengths[index] ?? 0];
      if (offset < heldFrom || offset + length > heldFrom + held.length) {
        held = await this.#read(offset, Math.max(length, READ_AHEAD_BYTES));
        heldFrom = offset;
      }
      const record = held.subarray(offset - heldFrom, offset - heldFrom + length);
      if (parseRecord(record)?.index !== index) throw new Error(`${this.#path} has changed under its batch.`);
      yield { isAnswered: kind === ANSWERED, json: record.subarray(headerLength(record)) };
    }
  }

  /** Waits for what is being written. */
  async close(): Promise<void> {
    await this.#writing;
    await this.#file.close();
  }

  async #writeAll(): Promise<void> {
    while (this.#waiting.length > 0) {
      const group = this.#takeGroup();
      try {
        await this.#clearFault();
        this.#fault = 'tornTail';
        await writeWhole(this.#file, Buffer.concat(group.map(({ record }) => record)));
        this.#fault = 'failedSync';
        await this.#file.datasync();
        this.#fault = null;
      } catch (error) {
        for (const { reject } of group) reject(error);
        continue;
      }
      for (const { result, record, resolve } of group) {
        this.#note(result, record.length);
        resolve();
      }
    }
    // In the same turn as the look at what waits, or a record that comes between the two would wait for ever.
    this.#writing = null;
  }

  #takeGroup(): Waiting[] {
    const group: Waiting[] = [];
    let bytes = 0;
    while (this.#waiting.length > 0 && bytes < MOST_GROUP_BYTES) {
      const next = this.#waiting.shift();
      if (next === undefined) break;
      bytes += next.record.length;
      group.push(next);
    }
    return group;
  }

  async #clearFault(): Promise<void> {
    if (this.#fault === 'tornTail') await this.#file.truncate(this.#syncedBytes);
    if (this.#fault === 'failedSync') await this.#startAnew();
  }

  /** After a failed fsync the kernel may call lost pages clean, so the same file is never trusted again. */
  async #startAnew(): Promise<void> {
    const fresh = `${this.#path}.anew`;
    const copy = await open(fresh, 'w+', 0o600);
    try {
      for (let from = 0; from < this.#syncedBytes; from += READ_AHEAD_BYTES) {
        const piece = await this.#read(from, Math.min(READ_AHEAD_BYTES, this.#syncedBytes - from));
        await writeWhole(copy, piece);
      }
      await copy.datasync();
    } finally {
      await copy.close();
    }
    await rename(fresh, this.#path);
    await syncFolder(dirname(this.#path));
    await this.#file.close();
    this.#file = await open(this.#path, 'a+', 0o600);
  }

  async #recover(): Promise<void> {
    let soundBytes = 0;
    for await (const { bytes } of inputLines(this.#path, MOST_RECORD_BYTES)) {
      const result = bytes === null ? null : parseRecord(bytes);
      if (result === null || bytes === null || result.index >= this.#kinds.length) break;
      this.#syncedBytes = soundBytes;
      this.#note(result, bytes.length + 1);
      soundBytes += bytes.length + 1;
    }
    this.#syncedBytes = soundBytes;
    const { size } = await this.#file.stat();
    if (size < soundBytes) {
      // The last record is whole but for its end.
      await writeWhole(this.#file, Buffer.from('\n'));
    } else if (size > soundBytes) {
      await this.#file.truncate(soundBytes);
    }
    await this.#file.datasync();
  }

  #note(result: Omit<LineResult, 'json'>, recordBytes: number): void {
    const { index, isAnswered, usage } = result;
    const offset = this.#syncedBytes;
    this.#syncedBytes += recordBytes;
    if (this.has(index)) return;
    this.#kinds[index] = isAnswered ? ANSWERED : REFUSED;
    this.#offsets[index] = offset;
    this.#lengths[index] = recordBytes - 1;
    if (isAnswered) this.#completed += 1;
    else this.#failed += 1;
    this.#usage = {
      promptTokenCount: this.#usage.promptTokenCount + usage.promptTokenCount,
      cachedTokenCount: this.#usage.cachedTokenCount + usage.cachedTokenCount,
      completionTokenCount: this.#usage.completionTokenCount + usage.completionTokenCount,
    };
  }

  async #read(offset: number, length: number): Promise<Buffer> {
    const buffer = Buffer.alloc(length);
    let filled = 0;
    while (filled < length) {
      const { bytesRead } = await this.#file.read(buffer, filled, length - filled, offset + filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    return buffer.subarray(0, filled);
  }
}

/** A short write is what a full disk gives before it gives an error. */
async function writeWhole(file: FileHandle, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length; ) at += (await file.write(bytes, at)).bytesWritten;
}

function recordOf({ index, isAnswered, usage, json }: LineResult): Buffer {
  const { promptTokenCount, cachedTokenCount, completionTokenCount } = usage;
  const head = `${index} ${isAnswered ? 'y' : 'n'} ${promptTokenCount},${cachedTokenCount},${completionTokenCount} `;
  const rest = Buffer.concat([Buffer.from(head), json]);
  return Buffer.concat([Buffer.from(`${checksum(rest)} `), rest, Buffer.from('\n')]);
}

const checksum = (bytes: Buffer): string => crc32(bytes).toString(16).padStart(8, '0');

const headerPattern = /^([0-9a-f]{8}) (\d+) ([yn]) (\d+),(\d+),(\d+) /;
const MOST_HEADER_BYTES = 128;

const headerOf = (record: Buffer): RegExpExecArray | null =>
  headerPattern.exec(record.subarray(0, MOST_HEADER_BYTES).toString('latin1'));

const headerLength = (record: Buffer): number => headerOf(record)?.[0].length ?? 0;

/** null where the record is torn or damaged. */
function parseRecord(record: Buffer): Omit<LineResult, 'json'> | null {
  const header = headerOf(record);
  if (header === null || checksum(record.subarray(9)) !== header[1]) return null;
  const [, , index, kind, promptTokenCount, cachedTokenCount, completionTokenCount] = header;
  return {
    index: Number(index),
    isAnswered: kind === 'y',
    usage: {
      promptTokenCount: Number(promptTokenCount),
      cachedTokenCount: Number(cachedTokenCount),
      completionTokenCount: Number(completionTokenCount),
    },
  };
}
