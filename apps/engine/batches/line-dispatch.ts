/**
 * Starts lines of the batches that run, as many as the pacing rule allows and in its order. One per engine, owned by
 * open-batches.ts; it looks again whenever a line has ended and a few times a second, because requests come and go.
 */
import { nextBatch, openLinesAllowed, type PacingView } from './batch-pacing.ts';
import type { LineRun } from './line-run.ts';

const LOOK_EVERY_MS = 200;

export class LineDispatch {
  readonly #view: (openLineCount: number) => PacingView;
  readonly #runs = new Set<LineRun>();
  readonly #timer: NodeJS.Timeout;
  #turnCount = 0;
  #isLooking = false;
  #isStopped = false;

  constructor(view: (openLineCount: number) => PacingView) {
    this.#view = view;
    this.#timer = setInterval(() => this.#look(), LOOK_EVERY_MS);
    this.#timer.unref();
  }

  get openLineCount(): number {
    return [...this.#runs].reduce((sum, run) => sum + run.openLineCount, 0);
  }

  add(run: LineRun): void {
    this.#runs.add(run);
    this.#look();
  }

  remove(run: LineRun): void {
    this.#runs.delete(run);
  }

  /** Starts nothing any more. */
  stop(): void {
    this.#isStopped = true;
    clearInterval(this.#timer);
  }

  #look(): void {
    if (!this.#isLooking && !this.#isStopped && this.#runs.size > 0) void this.#fill();
  }

  /** Starts lines one after the other; the run itself keeps what goes wrong while it reads. */
  async #fill(): Promise<void> {
    this.#isLooking = true;
    for (let run = this.#next(); run !== null; run = this.#next()) {
      this.#turnCount += 1;
      run.lastTurn = this.#turnCount;
      await run.startNext(() => this.#look());
    }
    this.#isLooking = false;
  }

  #next(): LineRun | null {
    if (this.#isStopped) return null;
    const view = this.#view(this.openLineCount);
    if (view.openLineCount >= openLinesAllowed(view)) return null;
    const batchId = nextBatch([...this.#runs].filter((run) => run.canStart));
    return [...this.#runs].find((run) => run.batchId === batchId) ?? null;
  }
}
