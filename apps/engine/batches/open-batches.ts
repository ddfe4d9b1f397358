/**
 * The room's door: what main.ts opens once and http/ calls for files and batches. It joins the database, the folder of files
 * and the batches under way, each of which lives in batch-drive.ts. Refuses with BatchErrors; knows nothing of HTTP.
 */
import { randomUUID } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import type { ReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { newFileId } from './assemble-output.ts';
import { type Batch, BatchError, type BatchOwner, type FilePurpose, type StoredFile } from './batch.ts';
import { BatchDrive, type BatchPlaces } from './batch-drive.ts';
import { beginBatch, hasEnded } from './batch-life.ts';
import { type PacingView, RecentPeak } from './batch-pacing.ts';
import { BatchesStoreError, openBatchesStore, type PageQuery } from './batches-store.ts';
import { type FileDraft, FilePlace } from './file-place.ts';
import { LineDispatch } from './line-dispatch.ts';
import type { LineRoad } from './line-road.ts';
import { Places } from './places.ts';

export interface BatchLimits {
  readonly maxFileBytes: number;
  readonly maxLineCount: number;
  /** Of all files and results together. */
  readonly maxStoredBytes: number;
}

export interface BatchesOptions {
  /** Made where it is missing; nothing else may be in it. */
  readonly folder: string;
  readonly limits: BatchLimits;
  /** What the live paths can hold, for the pacing of lines. */
  readonly capacity: () => Pick<PacingView, 'slotCount' | 'kvUsedShare'>;
  readonly now: () => number;
  /** For people; neither prompts nor answers are ever in it. */
  readonly log: (line: string) => void;
}

export interface AskedFile {
  readonly tenant: string;
  readonly filename: string;
  /** null: as long as any file. */
  readonly expiresAfterMs: number | null;
}

export type AskedBatch = BatchOwner &
  Pick<Batch, 'endpoint' | 'inputFileId' | 'metadata' | 'outputExpiresAfterMs'>;

export interface Page<Item> {
  readonly items: readonly Item[];
  readonly hasMore: boolean;
}

/** Every method that takes a tenant sees that tenant's things only. @throws BatchError, and Error of Node's from the disk */
export interface Batches {
  readonly limits: BatchLimits;
  /** What is written to it becomes a file by `addFile`. */
  draftFile(): Promise<FileDraft>;
  addFile(draft: FileDraft, asked: AskedFile): Promise<StoredFile>;
  file(tenant: string, fileId: string): Promise<StoredFile>;
  files(tenant: string, purpose: FilePurpose | null, page: PageQuery): Promise<Page<StoredFile>>;
  content(tenant: string, fileId: string): Promise<{ readonly file: StoredFile; readonly bytes: ReadStream }>;
  deleteFile(tenant: string, fileId: string): Promise<void>;
  create(asked: AskedBatch): Promise<Batch>;
  batch(tenant: string, batchId: string): Promise<Batch>;
  batches(tenant: string, page: PageQuery): Promise<Page<Batch>>;
  cancel(tenant: string, batchId: string): Promise<Batch>;
  /** Runs what there is and what comes; what a restart interrupted goes on. Called once. */
  start(road: LineRoad): Promise<void>;
  /** Starts no line any more, gives those under way so long, then leaves the rest for the next start. */
  close(graceMs: number): Promise<void>;
}

const DAY_MS = 24 * 3600_000;
const WINDOW_MS = DAY_MS;
const KEPT_MS = 30 * DAY_MS;
const MOST_UNFINISHED_BATCHES = 1000;
/** At once, and of one tenant. */
const MOST_READ = [2, 1] as const;
const MOST_RUNNING = [64, 8] as const;
const MOST_ASSEMBLED = [4, 2] as const;
const LOOK_EVERY_MS = 1000;
const SWEEP_EVERY_MS = 60_000;

/** @throws BatchesStoreError */
export async function openBatches(options: BatchesOptions): Promise<Batches> {
  const { folder, limits, log } = options;
  /** Whole milliseconds: the tables' times are integers. */
  const now = () => Math.floor(options.now());
  const place = placeOf(folder, limits.maxStoredBytes);
  const store = await openBatchesStore(join(folder, 'batches.db'), now());
  const unfinished = await store.unfinishedBatches();
  place.sweep(new Set(await store.fileIds()), new Set(unfinished.map(({ batchId }) => batchId)));

  const closing = new AbortController();
  setMaxListeners(0, closing.signal);
  const drives = new Map<string, BatchDrive>();
  const places: BatchPlaces = {
    reading: new Places(...MOST_READ),
    running: new Places(...MOST_RUNNING),
    assembling: new Places(...MOST_ASSEMBLED),
  };
  let road: LineRoad | null = null;
  const requestPeak = new RecentPeak();
  const dispatch = new LineDispatch((openLineCount) => {
    const inside = road?.insideCounts() ?? { requests: 0, lines: 0 };
    return {
      ...options.capacity(),
      requestCount: requestPeak.note(inside.requests, options.now()),
      // A line that waits to be tried again is no sequence, and one of several prompts is several.
      openLineCount: Math.max(openLineCount, inside.lines),
    };
  });
  let sweptAt = 0;
  let isSweeping = false;
  let timer: NodeJS.Timeout | undefined;

  async function drive(batch: Batch, on: LineRoad): Promise<void> {
    const driven = new BatchDrive(batch, {
      store,
      place,
      dispatch,
      places,
      road: on,
      maxLineCount: limits.maxLineCount,
      keptMs: KEPT_MS,
      closing: closing.signal,
      now,
      log,
    });
    drives.set(batch.batchId, driven);
    await driven.prepare();
    void driven.run().then(
      () => drives.delete(batch.batchId),
      (error: Error) => log(`batch ${batch.batchId} stands still until the next start: ${error.stack}`),
    );
  }

  /** Windows that have passed, files that have expired. */
  function look(): void {
    for (const driven of drives.values()) driven.look();
    if (isSweeping || now() - sweptAt < SWEEP_EVERY_MS) return;
    isSweeping = true;
    sweptAt = now();
    sweepExpired()
      .catch((error: Error) => log(`expired files of batches cannot be removed yet: ${error.message}`))
      .finally(() => {
        isSweeping = false;
      });
  }

  async function sweepExpired(): Promise<void> {
    for (const file of await store.filesExpiredBy(now())) {
      if (!isInput(file.fileId)) await removeFile(file.fileId);
    }
    await store.removeBatchesEndedBefore(now() - KEPT_MS);
  }

  const isInput = (fileId: string): boolean =>
    [...drives.values()].some(({ batch }) => batch.inputFileId === fileId && !hasEnded(batch));

  /** The row first: a file without a row is removed at the next start, a row without a file would be a lie. */
  async function removeFile(fileId: string): Promise<void> {
    await store.removeFile(fileId);
    await place.remove(fileId);
  }

  async function fileOf(tenant: string, fileId: string): Promise<StoredFile> {
    const file = await store.file(tenant, fileId);
    if (file === null || file.expiresAt <= now()) {
      throw new BatchError(
        'notFound',
        'file_not_found',
        `There is no file "${fileId.slice(0, 64)}".`,
        'file_id',
      );
    }
    return file;
  }

  async function batchOf(tenant: string, batchId: string): Promise<Batch> {
    const batch = await store.batch(tenant, batchId);
    if (batch === null) {
      throw new BatchError(
        'notFound',
        'batch_not_found',
        `There is no batch "${batchId.slice(0, 64)}".`,
        'batch_id',
      );
    }
    return batch;
  }

  const withProgress = (stored: Batch): Batch => drives.get(stored.batchId)?.progress ?? stored;

  function pageOf<Item>(found: readonly Item[], limit: number): Page<Item> {
    return { items: found.slice(0, limit), hasMore: found.length > limit };
  }

  return {
    limits,
    draftFile: () => place.draft(newFileId(), 'limited'),
    async addFile(draft, { tenant, filename, expiresAfterMs }) {
      const file: StoredFile = {
        fileId: draft.fileId,
        tenant,
        purpose: 'batch',
        filename,
        bytes: draft.bytes,
        createdAt: now(),
        expiresAt: now() + (expiresAfterMs ?? KEPT_MS),
      };
      await draft.keep();
      try {
        await store.addFile(file);
      } catch (error) {
        await place.remove(file.fileId);
        throw error;
      }
      return file;
    },
    file: fileOf,
    files: async (tenant, purpose, page) =>
      pageOf(await store.files(tenant, purpose, now(), { ...page, limit: page.limit + 1 }), page.limit),
    async content(tenant, fileId) {
      const file = await fileOf(tenant, fileId);
      // Opened first: what is deleted while it is read is read to its end.
      const handle = await open(place.pathOf(fileId), 'r');
      return { file, bytes: handle.createReadStream() };
    },
    async deleteFile(tenant, fileId) {
      await fileOf(tenant, fileId);
      if (isInput(fileId)) {
        throw new BatchError(
          'conflict',
          'file_in_use',
          'A batch that has not ended reads this file; cancel the batch first.',
          'file_id',
        );
      }
      await removeFile(fileId);
    },

    async create(asked) {
      if (road === null || closing.signal.aborted)
        throw new BatchError('unavailable', 'server_error', 'No batch can be taken now.');
      const input = await store.file(asked.tenant, asked.inputFileId);
      if (input === null || input.purpose !== 'batch' || input.expiresAt <= now()) {
        throw new BatchError(
          'invalid',
          'file_not_found',
          `There is no file "${asked.inputFileId.slice(0, 64)}" of purpose "batch".`,
          'input_file_id',
        );
      }
      if (drives.size >= MOST_UNFINISHED_BATCHES) {
        throw new BatchError(
          'full',
          'too_many_batches',
          `${MOST_UNFINISHED_BATCHES} batches wait already; wait until some have ended, or cancel them.`,
        );
      }
      const createdAt = now();
      const batch = beginBatch(
        { ...asked, batchId: `batch_${randomUUID().replaceAll('-', '')}` },
        { createdAt, expiresAt: createdAt + WINDOW_MS },
      );
      await store.addBatch(batch);
      await drive(batch, road);
      return batch;
    },
    batch: async (tenant, batchId) => withProgress(await batchOf(tenant, batchId)),
    async batches(tenant, page) {
      const found = await store.batches(tenant, { ...page, limit: page.limit + 1 });
      return pageOf(found.map(withProgress), page.limit);
    },
    async cancel(tenant, batchId) {
      const stored = await batchOf(tenant, batchId);
      const driven = drives.get(batchId);
      if (driven === undefined || !(await driven.cancel())) {
        const { status } = driven?.batch ?? stored;
        throw new BatchError(
          'conflict',
          'batch_not_cancellable',
          `The batch is ${status} and cannot be cancelled.`,
        );
      }
      return driven.progress;
    },

    async start(on) {
      road = on;
      timer = setInterval(look, LOOK_EVERY_MS);
      timer.unref();
      for (const batch of unfinished) await drive(batch, on);
    },
    async close(graceMs) {
      dispatch.stop();
      clearInterval(timer);
      const deadline = Date.now() + graceMs;
      while (dispatch.openLineCount > 0 && Date.now() < deadline) {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      closing.abort();
      await Promise.all([...drives.values()].map((driven) => driven.ended()));
      await store.close();
    },
  };
}

/** @throws BatchesStoreError naming the folder */
function placeOf(folder: string, maxBytes: number): FilePlace {
  try {
    return new FilePlace(folder, maxBytes);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new BatchesStoreError(`The folder of batches ${folder} cannot be used: ${why}.`, { cause: error });
  }
}
