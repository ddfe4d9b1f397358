/**
 * The folder of files and results, and how much may be in it. Room is taken from one total before a byte is written, so
 * that disk use is bounded whatever clients send; what a killed process left half written is removed at the next start.
 * Owned by open-batches.ts; knows names and bytes, not what they mean.
 */
import { mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { BatchError } from './batch.ts';
import { syncFolder } from './sync-folder.ts';

export interface FileDraft {
  readonly fileId: string;
  readonly bytes: number;
  /** @throws BatchError `full` above the total, Error of Node's from the disk */
  write(chunk: Buffer): Promise<void>;
  /** The file stands on the disk under its name once this resolves. */
  keep(): Promise<void>;
  /** Does nothing to a file that was kept; may be called more than once. */
  discard(): Promise<void>;
}

/** `limited`: what a client sends. `promised`: what was taken room for before, as results are. */
export type RoomKind = 'limited' | 'promised';

/** A file takes at least a block, so that a flood of empty ones is bounded as well. */
const BLOCK_BYTES = 4096;
/** At once: each holds a file open for as long as its client takes. */
const MOST_UPLOADS = 64;
const DRAFT_ENDING = '.part';
/** A result is written twice: when its line ends, and into the output before the first copy goes. */
const RESULT_COPIES = 2;

const blocks = (bytes: number): number => Math.max(1, Math.ceil(bytes / BLOCK_BYTES)) * BLOCK_BYTES;

export class FilePlace {
  readonly #files: string;
  readonly #results: string;
  readonly #maxBytes: number;
  /** Taken for each path. */
  readonly #rooms = new Map<string, number>();
  #usedBytes = 0;
  #uploadCount = 0;

  /** @throws Error of Node's where the folders cannot be made */
  constructor(folder: string, maxBytes: number) {
    this.#files = join(folder, 'files');
    this.#results = join(folder, 'results');
    this.#maxBytes = maxBytes;
    for (const each of [this.#files, this.#results]) mkdirSync(each, { recursive: true, mode: 0o700 });
  }

  /** Removes what no row speaks of, and counts the rest. Called once, before anything is written. */
  sweep(fileIds: ReadonlySet<string>, batchIds: ReadonlySet<string>): void {
    for (const name of readdirSync(this.#files)) {
      const path = join(this.#files, name);
      if (fileIds.has(name)) this.#take(path, blocks(statSync(path).size), 'promised');
      else rmSync(path, { recursive: true, force: true });
    }
    for (const name of readdirSync(this.#results)) {
      const path = join(this.#results, name);
      if (batchIds.has(name)) this.#take(path, statSync(path).size * RESULT_COPIES, 'promised');
      else rmSync(path, { recursive: true, force: true });
    }
  }

  pathOf(fileId: string): string {
    return join(this.#files, fileId);
  }

  resultsPathOf(batchId: string): string {
    return join(this.#results, batchId);
  }

  /** Before so many bytes are appended to a batch's results. @throws BatchError `full` */
  takeForResult(batchId: string, bytes: number): void {
    this.#take(this.resultsPathOf(batchId), bytes * RESULT_COPIES, 'limited');
  }

  /** @throws BatchError `full` or `unavailable`, Error of Node's */
  async draft(fileId: string, kind: RoomKind): Promise<FileDraft> {
    const path = this.pathOf(fileId);
    const draftPath = `${path}${DRAFT_ENDING}`;
    if (kind === 'limited' && this.#uploadCount >= MOST_UPLOADS) {
      throw new BatchError(
        'unavailable',
        'too_many_uploads',
        'Too many files are being uploaded; try again soon.',
      );
    }
    this.#take(path, BLOCK_BYTES, kind);
    const uploads = kind === 'limited' ? 1 : 0;
    this.#uploadCount += uploads;
    let bytes = 0;
    let isSettled = false;
    let file: FileHandle;
    try {
      file = await open(draftPath, 'wx', 0o600);
    } catch (error) {
      this.#uploadCount -= uploads;
      this.#give(path);
      throw error;
    }
    return {
      fileId,
      get bytes() {
        return bytes;
      },
      write: async (chunk) => {
        this.#take(path, blocks(bytes + chunk.length) - blocks(bytes), kind);
        bytes += chunk.length;
        for (let at = 0; at < chunk.length; ) at += (await file.write(chunk, at)).bytesWritten;
      },
      keep: async () => {
        await file.sync();
        await rename(draftPath, path);
        await syncFolder(this.#files);
        isSettled = true;
        this.#uploadCount -= uploads;
        await file.close();
      },
      discard: async () => {
        if (isSettled) return;
        isSettled = true;
        this.#uploadCount -= uploads;
        this.#give(path);
        await file.close();
        await rm(draftPath, { force: true });
        await rm(path, { force: true });
      },
    };
  }

  async remove(fileId: string): Promise<void> {
    await rm(this.pathOf(fileId), { force: true });
    this.#give(this.pathOf(fileId));
  }

  async removeResults(batchId: string): Promise<void> {
    await rm(this.resultsPathOf(batchId), { force: true });
    this.#give(this.resultsPathOf(batchId));
  }

  #take(path: string, bytes: number, kind: RoomKind): void {
    if (kind === 'limited' && this.#usedBytes + bytes > this.#maxBytes) {
      throw new BatchError(
        'full',
        'storage_limit_exceeded',
        `Files and results may take ${this.#maxBytes} bytes together, and that is used up; delete files that are no longer needed.`,
      );
    }
    this.#usedBytes += bytes;
    this.#rooms.set(path, (this.#rooms.get(path) ?? 0) + bytes);
  }

  #give(path: string): void {
    this.#usedBytes -= this.#rooms.get(path) ?? 0;
    this.#rooms.delete(path);
  }
}
