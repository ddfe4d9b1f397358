/**
 * One batch from where it was stored to its end: reads its input, runs its lines, makes its files; every state is stored
 * before it is acted on. Made by open-batches.ts for each batch that has not ended. What the disk refuses is tried again
 * until it has room; what is our fault ends the batch as failed, with the reason in the log.
 */
import { setMaxListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { type AssembledFile, assembleOutput } from './assemble-output.ts';
import type { Batch, InputFault, StoredFile } from './batch.ts';
import { advance, type BatchEvent, canCancel, hasEnded } from './batch-life.ts';
import type { BatchesStore } from './batches-store.ts';
import { checkInput } from './check-input.ts';
import type { FilePlace } from './file-place.ts';
import type { LineDispatch } from './line-dispatch.ts';
import type { LineRoad } from './line-road.ts';
import { LineRun } from './line-run.ts';
import type { Places } from './places.ts';
import { ResultLog } from './result-log.ts';
import { isWorldFault } from './world-fault.ts';

/** How many batches may be in each of their stages at once. */
export interface BatchPlaces {
  /** Reading is work for this process's one thread. */
  readonly reading: Places;
  readonly running: Places;
  readonly assembling: Places;
}

export interface BatchDriveParts {
  readonly store: BatchesStore;
  readonly place: FilePlace;
  readonly dispatch: LineDispatch;
  readonly places: BatchPlaces;
  readonly road: LineRoad;
  readonly maxLineCount: number;
  /** How long output and error file are kept where the client did not say. */
  readonly keptMs: number;
  /** Aborted at the end of the process. */
  readonly closing: AbortSignal;
  readonly now: () => number;
  readonly log: (line: string) => void;
}

const FIRST_PAUSE_MS = 500;
const MOST_PAUSE_MS = 10_000;

export class BatchDrive {
  #batch: Batch;
  readonly #parts: BatchDriveParts;
  /** Ends the reading and the lines: a cancellation, the end of the window, or of the process. */
  readonly #stopping = new AbortController();
  #results: ResultLog | null = null;
  /** What its results came to when they were last closed. */
  #standing: Pick<Batch, 'counts' | 'usage'> | null = null;
  /** One change after the other, so that each is decided on the state that the last one left. */
  #turn: Promise<unknown> = Promise.resolve();
  #running: Promise<void> | null = null;
  #saidAt = 0;

  constructor(batch: Batch, parts: BatchDriveParts) {
    this.#batch = batch;
    this.#parts = parts;
    setMaxListeners(0, this.#stopping.signal);
    if (batch.status === 'cancelling') this.#stopping.abort();
  }

  get batch(): Batch {
    return this.#batch;
  }

  /** The batch with what its lines have come to so far. */
  get progress(): Batch {
    if (hasEnded(this.#batch)) return this.#batch;
    const results = this.#results;
    const standing = results === null ? this.#standing : standingOf(results);
    return { ...this.#batch, ...(standing ?? {}) };
  }

  /** Reads what is done already, before anybody asks. Called once, before `run`. */
  async prepare(): Promise<void> {
    if (this.#batch.counts.total === 0) return;
    try {
      await this.#openResults();
      await this.#closeResults();
    } catch (error) {
      if (!isWorldFault(error)) throw error;
      this.#say(error.message);
    }
  }

  /** Resolves when the batch has ended, or the process ends. */
  run(): Promise<void> {
    this.#running ??= this.#untilClosed();
    return this.#running;
  }

  async ended(): Promise<void> {
    await this.#running;
  }

  /** False where it has come too far to be cancelled. */
  async cancel(): Promise<boolean> {
    await this.#change((batch) =>
      canCancel(batch) && batch.status !== 'cancelling'
        ? { kind: 'cancelAsked', at: this.#parts.now() }
        : null,
    );
    const isCancelled = this.#batch.status === 'cancelling' || this.#batch.status === 'cancelled';
    if (isCancelled) this.#stopping.abort();
    return isCancelled;
  }

  /** Called once a second: ends what is overdue. */
  look(): void {
    const { status, expiresAt } = this.#batch;
    if ((status === 'validating' || status === 'in_progress') && this.#isOverdue(expiresAt)) {
      this.#stopping.abort();
    }
  }

  #isOverdue(expiresAt: number): boolean {
    return this.#parts.now() >= expiresAt;
  }

  async #untilClosed(): Promise<void> {
    const { closing } = this.#parts;
    const stop = (): void => this.#stopping.abort();
    closing.addEventListener('abort', stop);
    try {
      await this.#live();
    } finally {
      closing.removeEventListener('abort', stop);
    }
  }

  async #live(): Promise<void> {
    const { closing } = this.#parts;
    let pauseMs = FIRST_PAUSE_MS;
    while (!hasEnded(this.#batch) && !closing.aborted) {
      const before = this.#batch.status;
      try {
        await this.#step();
      } catch (error) {
        if (!closing.aborted) await this.#meet(error);
      }
      if (this.#batch.status !== before) {
        pauseMs = FIRST_PAUSE_MS;
      } else if (!closing.aborted) {
        // Only the end of the process cuts it short.
        await sleep(pauseMs, undefined, { signal: closing, ref: false }).catch(() => undefined);
        pauseMs = Math.min(pauseMs * 2, MOST_PAUSE_MS);
      }
    }
  }

  /** @throws what is our fault twice over */
  async #meet(error: unknown): Promise<void> {
    try {
      if (!isWorldFault(error)) await this.#fail(error);
      else this.#say(error.message);
    } catch (second) {
      if (!isWorldFault(second)) throw second;
      this.#say(second.message);
    }
  }

  async #step(): Promise<void> {
    const { places, closing } = this.#parts;
    switch (this.#batch.status) {
      case 'validating':
        await this.#inPlace(places.reading, this.#stopping.signal, () => this.#validate());
        return this.#noteOverdue();
      case 'in_progress':
        await this.#inPlace(places.running, this.#stopping.signal, () => this.#runLines());
        return this.#noteOverdue();
      case 'finalizing':
      case 'cancelling':
        return this.#inPlace(places.assembling, closing, () => this.#assemble());
      default:
        throw new Error(`Batch ${this.#batch.batchId} is driven although it is ${this.#batch.status}.`);
    }
  }

  async #inPlace(places: Places, signal: AbortSignal, act: () => Promise<void>): Promise<void> {
    const release = await places.take(this.#batch.tenant, signal);
    try {
      if (release !== null) await act();
    } finally {
      release?.();
      await this.#closeResults();
    }
  }

  async #noteOverdue(): Promise<void> {
    const { closing, now } = this.#parts;
    if (!this.#stopping.signal.aborted) return;
    await this.#change((batch) =>
      !closing.aborted && this.#isOverdue(batch.expiresAt) ? { kind: 'windowPassed', at: now() } : null,
    );
  }

  async #validate(): Promise<void> {
    const { place, road, maxLineCount, now } = this.#parts;
    const { inputFileId, endpoint } = this.#batch;
    const { signal } = this.#stopping;
    let event: BatchEvent;
    try {
      const verdict = await checkInput(place.pathOf(inputFileId), endpoint, maxLineCount, road, signal);
      event = verdict.isSound
        ? { kind: 'validated', at: now(), lineCount: verdict.lineCount, model: verdict.model }
        : { kind: 'failed', at: now(), faults: verdict.faults };
    } catch (error) {
      if (signal.aborted) return;
      throw error;
    }
    await this.#change((batch) => (batch.status === 'validating' ? event : null));
  }

  async #runLines(): Promise<void> {
    const { place, road, dispatch, now } = this.#parts;
    const { signal } = this.#stopping;
    const run = new LineRun({
      batch: this.#batch,
      log: await this.#openResults(),
      place,
      road,
      inputPath: place.pathOf(this.#batch.inputFileId),
      signal,
      say: (line) => this.#say(line),
    });
    dispatch.add(run);
    try {
      await run.ended();
    } finally {
      dispatch.remove(run);
    }
    if (signal.aborted) return;
    await this.#change((batch) => (batch.status === 'in_progress' ? { kind: 'linesDone', at: now() } : null));
  }

  async #assemble(): Promise<void> {
    const { place, road, store, now } = this.#parts;
    const batch = this.#batch;
    const { output, errors, counts, usage } = await assembleOutput(batch, {
      place,
      log: await this.#openResults(),
      rules: road,
      inputPath: place.pathOf(batch.inputFileId),
    });
    const made = [this.#madeFile(output, 'output'), this.#madeFile(errors, 'error')].filter(
      (file) => file !== null,
    );
    const event: BatchEvent = {
      kind: 'assembled',
      at: now(),
      outputFileId: output?.fileId ?? null,
      errorFileId: errors?.fileId ?? null,
      counts,
      usage,
    };
    try {
      const ended = advance(batch, event);
      await this.#inTurn(() => store.saveBatch(ended, true, made));
      this.#batch = ended;
    } catch (error) {
      for (const file of made) await place.remove(file.fileId);
      throw error;
    }
    await this.#dropResults();
  }

  #madeFile(file: AssembledFile | null, kind: 'output' | 'error'): StoredFile | null {
    if (file === null) return null;
    const { batchId, tenant, outputExpiresAfterMs } = this.#batch;
    const createdAt = this.#parts.now();
    return {
      ...file,
      tenant,
      purpose: 'batch_output',
      filename: `${batchId}_${kind}.jsonl`,
      createdAt,
      expiresAt: createdAt + (outputExpiresAfterMs ?? this.#parts.keptMs),
    };
  }

  /** Not the world's: its input is gone, or a fault of ours, which the log tells and the batch only names. */
  async #fail(error: unknown): Promise<void> {
    const { now, log } = this.#parts;
    const isInputGone = error instanceof Error && 'code' in error && error.code === 'ENOENT';
    if (!isInputGone) log(`batch ${this.#batch.batchId} failed: ${(error as Error).stack ?? error}`);
    const fault: InputFault = isInputGone
      ? { code: 'file_not_found', message: 'The input file is gone.', param: 'input_file_id', line: null }
      : { code: 'server_error', message: 'The server failed to run this batch.', param: null, line: null };
    await this.#change(() => ({ kind: 'failed', at: now(), faults: [fault] }));
    await this.#dropResults();
  }

  /** Decides on the state as it is now, and stores the next one before it counts. */
  async #change(decide: (batch: Batch) => BatchEvent | null): Promise<void> {
    await this.#inTurn(async () => {
      const event = hasEnded(this.#batch) ? null : decide(this.#batch);
      if (event === null) return;
      const next = advance(this.#batch, event);
      await this.#parts.store.saveBatch(next, hasEnded(next), []);
      this.#batch = next;
    });
  }

  #inTurn<Answer>(act: () => Promise<Answer>): Promise<Answer> {
    const answer = this.#turn.then(act);
    this.#turn = answer.catch(() => undefined);
    return answer;
  }

  async #openResults(): Promise<ResultLog> {
    const { batchId, counts } = this.#batch;
    this.#results ??= await ResultLog.open(this.#parts.place.resultsPathOf(batchId), counts.total);
    return this.#results;
  }

  async #closeResults(): Promise<void> {
    const results = this.#results;
    if (results === null) return;
    this.#standing = standingOf(results);
    this.#results = null;
    await results.close();
  }

  async #dropResults(): Promise<void> {
    await this.#closeResults();
    await this.#parts.place.removeResults(this.#batch.batchId);
  }

  /** At most once a minute: what waits for room says so again and again. */
  #say(message: string): void {
    const { now, log } = this.#parts;
    if (now() - this.#saidAt < 60_000) return;
    this.#saidAt = now();
    log(`batch ${this.#batch.batchId} waits: ${message}`);
  }
}

const standingOf = (results: ResultLog): Pick<Batch, 'counts' | 'usage'> => ({
  counts: results.counts(),
  usage: results.usage(),
});
