/**
 * The lines of one batch while they run: the next one that has no result yet, its answer through the endpoint's road, tried
 * again where the world was at fault, and kept. Made by open-batches.ts, started line by line by line-dispatch.ts.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { lineId } from './assemble-output.ts';
import { type Batch, noUsage } from './batch.ts';
import { readLine } from './check-input.ts';
import type { FilePlace } from './file-place.ts';
import { type InputLine, inputLines } from './input-lines.ts';
import { isFailedAttempt, retryPauseMs } from './line-retry.ts';
import type { LineAnswer, LineRoad } from './line-road.ts';
import type { ResultLog } from './result-log.ts';
import { isWorldFault } from './world-fault.ts';

const DISK_PAUSE_MS = 2000;

export interface LineRunParts {
  readonly batch: Batch;
  readonly log: ResultLog;
  readonly place: FilePlace;
  readonly road: LineRoad;
  readonly inputPath: string;
  /** Aborted by a cancellation, the end of the window, or the end of the process. */
  readonly signal: AbortSignal;
  readonly say: (line: string) => void;
}

export class LineRun {
  readonly batchId: string;
  readonly tenant: string;
  /** When its last line was started, counted over all batches. */
  lastTurn = 0;
  readonly #parts: LineRunParts;
  readonly #lines: AsyncGenerator<InputLine>;
  readonly #open = new Set<Promise<void>>();
  #isExhausted = false;
  #fault: unknown = null;
  #wake: () => void = () => {};

  constructor(parts: LineRunParts) {
    this.batchId = parts.batch.batchId;
    this.tenant = parts.batch.tenant;
    this.#parts = parts;
    this.#lines = inputLines(parts.inputPath, parts.road.maxLineBytes);
    parts.signal.addEventListener('abort', () => this.#wake(), { once: true });
  }

  get openLineCount(): number {
    return this.#open.size;
  }

  /** True while there may be a line to start. */
  get canStart(): boolean {
    return !this.#isExhausted && this.#fault === null && !this.#parts.signal.aborted;
  }

  /** Starts the next line; false where there was none left. `onEnd` is called when it has its result or was given up. */
  async startNext(onEnd: () => void): Promise<boolean> {
    const line = await this.#nextLine();
    if (line === null || this.#parts.signal.aborted) return false;
    const running = this.#runLine(line)
      .catch((error: unknown) => {
        this.#fault ??= error;
      })
      .finally(() => {
        this.#open.delete(running);
        this.#wake();
        onEnd();
      });
    this.#open.add(running);
    return true;
  }

  /** Resolves when no line is open and none will be started. @throws what stopped it, if not its signal */
  async ended(): Promise<void> {
    while (this.canStart || this.#open.size > 0) {
      await new Promise<void>((wake) => {
        this.#wake = wake;
      });
    }
    await this.#lines.return(undefined);
    if (this.#fault !== null) throw this.#fault;
  }

  async #nextLine(): Promise<InputLine | null> {
    try {
      while (this.canStart) {
        const { value, done } = await this.#lines.next();
        if (done === true) break;
        if (!this.#parts.log.has(value.index)) return this.canStart ? value : null;
      }
    } catch (error) {
      this.#fault ??= error;
    }
    if (!this.#parts.signal.aborted) this.#isExhausted = true;
    this.#wake();
    return null;
  }

  async #runLine(line: InputLine): Promise<void> {
    const { batch, road, signal } = this.#parts;
    const read = line.bytes === null ? null : readLine(line.bytes, batch.endpoint, road);
    if (read === null || !('customId' in read)) {
      throw new Error(`Line ${line.number} of ${batch.inputFileId} is no longer what was checked.`);
    }
    const owner = { tenant: batch.tenant, keyId: batch.keyId };
    let failedAttemptCount = 0;
    for (let attemptCount = 1; ; attemptCount += 1) {
      const answer = await road.answerLine({ endpoint: batch.endpoint, body: read.body, owner }, signal);
      if (!answer.isAnswered) {
        if (signal.aborted) return;
        if (isFailedAttempt(answer)) failedAttemptCount += 1;
        const pauseMs = retryPauseMs(answer, attemptCount, failedAttemptCount);
        if (pauseMs !== null) {
          if (!(await paused(pauseMs, signal))) return;
          continue;
        }
      }
      await this.#keep(line.index, read.customId, answer);
      return;
    }
  }

  /** Waits for room where the disk or the total has none; gives up only when the run is stopped. */
  async #keep(index: number, customId: string, answer: LineAnswer): Promise<void> {
    const { batch, log, place, signal, say } = this.#parts;
    const json = JSON.stringify({
      id: lineId(batch.batchId, index),
      custom_id: customId,
      response: { status_code: answer.status, request_id: answer.requestId, body: answer.body },
      error: null,
    });
    const result = {
      index,
      isAnswered: answer.isAnswered,
      usage: answer.isAnswered ? answer.usage : noUsage,
      json: Buffer.from(json),
    };
    let isRoomTaken = false;
    for (;;) {
      try {
        if (!isRoomTaken) place.takeForResult(batch.batchId, json.length);
        isRoomTaken = true;
        await log.append(result);
        return;
      } catch (error) {
        if (!isWorldFault(error)) throw error;
        say(`batch ${batch.batchId}: a result cannot be kept yet: ${error.message}`);
        if (!(await paused(DISK_PAUSE_MS, signal))) return;
      }
    }
  }
}

/** False where it was cut short. */
async function paused(ms: number, signal: AbortSignal): Promise<boolean> {
  try {
    await sleep(ms, undefined, { signal, ref: false });
    return true;
  } catch {
    // Only the signal rejects a sleep.
    return false;
  }
}
