/**
 * Every sequence between submission and end, whichever worker has it: places it, hears its tokens, and when its worker is
 * lost does what lost-sequence.ts decides. Owned by worker-fleet.ts. A stream outlives its workers: its reader sees tokens
 * in order, each once, and one end.
 */
import { noGuesses } from '@variator/scheduler/guess-watch';
import type { EndedSequence, EndReason, SequenceSpec, SequenceStart } from '@variator/scheduler/sequence';
import { type EventQueue, eventQueue } from './event-queue.ts';
import type { SequenceEvent, SequenceStream } from './fleet.ts';
import type { JoinedWorker } from './joined-worker.ts';
import type { WorkerFrame } from './link-frames.ts';
import {
  addAccounts,
  emptyAccount,
  fateOf,
  type LossSituation,
  resumedSpec,
  wholeEnd,
} from './lost-sequence.ts';
import type { Placement } from './route-sequence.ts';

export interface OpenSequence {
  readonly spec: SequenceSpec;
  readonly submittedAt: number;
  readonly queue: EventQueue<SequenceEvent>;
  /** Those of the specification, then what came. */
  readonly generatedTokenIds: number[];
  readonly numericsIds: Set<string>;
  /** Null while it waits for a successor. */
  worker: JoinedWorker | null;
  /** What it was predicted to take there before its first token; null after it. */
  pending: Pick<Placement, 'prefillMs' | 'blockCount'> | null;
  /** Its name on that worker. */
  nameThere: string;
  /** Charged by lost workers, as far as they told. */
  accountBefore: EndedSequence['account'];
  /** Charged by this worker, as of its last token. */
  account: EndedSequence['account'];
  start: SequenceStart | null;
  endWith: 'stop' | 'cancelled' | null;
  resumeCount: number;
  fruitlessResumeCount: number;
  /** Once it was with a worker that was lost, a charge may be missing. */
  isAccountFinal: boolean;
}

export interface OpenSequencesOptions {
  readonly now: () => number;
  /** Null while no worker has joined. */
  readonly route: (sequence: OpenSequence) => Placement | null;
  readonly situation: () => LossSituation;
}

const MOST_QUEUED_EVENTS = 100_000;

export class OpenSequences {
  readonly #options: OpenSequencesOptions;
  readonly #open = new Set<OpenSequence>();
  /** In order of submission. */
  readonly #waiting = new Set<OpenSequence>();

  constructor(options: OpenSequencesOptions) {
    this.#options = options;
  }

  get count(): number {
    return this.#open.size;
  }

  get waitingCount(): number {
    return this.#waiting.size;
  }

  /** Gives it to a worker, or keeps it until one joins. */
  submit(spec: SequenceSpec): SequenceStream {
    const sequence: OpenSequence = {
      spec,
      submittedAt: this.#options.now(),
      queue: eventQueue<SequenceEvent>(MOST_QUEUED_EVENTS, () => this.#tell(sequence, 'cancelled')),
      generatedTokenIds: [...spec.generatedTokenIds],
      numericsIds: new Set(),
      worker: null,
      pending: null,
      nameThere: '',
      accountBefore: emptyAccount,
      account: emptyAccount,
      start: null,
      endWith: null,
      resumeCount: 0,
      fruitlessResumeCount: 0,
      isAccountFinal: true,
    };
    this.#open.add(sequence);
    this.#place(sequence);
    return {
      stop: () => this.#tell(sequence, 'stop'),
      cancel: () => this.#tell(sequence, 'cancelled'),
      [Symbol.asyncIterator]: () => sequence.queue[Symbol.asyncIterator](),
    };
  }

  /** @throws Error where the worker left a token out or said one twice */
  takeTokens(worker: JoinedWorker, frame: Extract<WorkerFrame, { type: 'tokens' }>): void {
    const at = this.#options.now();
    for (const start of frame.starts) {
      const sequence = worker.open.get(start.sequenceId);
      if (sequence) sequence.start ??= start;
    }
    for (const [place, { sequenceId, tokenId, index, logprobs }] of frame.events.entries()) {
      const sequence = worker.open.get(sequenceId);
      if (!sequence) continue;
      if (index !== sequence.generatedTokenIds.length) {
        throw new Error(`it sent token ${index} where ${sequence.generatedTokenIds.length} was due`);
      }
      sequence.generatedTokenIds.push(tokenId);
      sequence.numericsIds.add(worker.numericsId);
      sequence.fruitlessResumeCount = 0;
      sequence.pending = null;
      sequence.account = frame.accounts[place] ?? sequence.account;
      sequence.queue.push({
        kind: 'token',
        tokenId,
        index,
        at,
        ...(logprobs === undefined ? {} : { logprobs }),
      });
    }
  }

  takeEnd(worker: JoinedWorker, frame: Extract<WorkerFrame, { type: 'ended' }>): void {
    const sequence = worker.open.get(frame.ended.sequenceId);
    if (!sequence) return;
    if (sequence.resumeCount > 0) sequence.numericsIds.add(worker.numericsId);
    const earlier = {
      sequenceId: sequence.spec.sequenceId,
      account: sequence.accountBefore,
      start: sequence.start,
      numericsIds: sequence.numericsIds,
    };
    this.#finish(sequence, wholeEnd(frame.ended, earlier), frame.pathId, false);
  }

  /** Resumes, keeps or ends whatever the worker had. */
  loseWorker(worker: JoinedWorker, message: string): void {
    for (const sequence of [...worker.open.values()]) {
      worker.open.delete(sequence.nameThere);
      sequence.worker = null;
      sequence.accountBefore = addAccounts(sequence.accountBefore, sequence.account);
      sequence.account = emptyAccount;
      sequence.isAccountFinal = false;
      const fate = fateOf(sequence, this.#options.situation());
      if (fate.kind === 'end') this.#end(sequence, fate.reason, '', worker);
      else if (fate.kind === 'fail') this.#end(sequence, 'error', `${message}; ${fate.why}`, worker);
      else {
        sequence.resumeCount += 1;
        sequence.fruitlessResumeCount += 1;
        this.#place(sequence);
      }
    }
  }

  /** A worker has joined: whoever waited for one goes to it. */
  placeWaiting(): void {
    for (const sequence of [...this.#waiting]) this.#place(sequence);
  }

  /** Nobody will join any more, or not in time. */
  failWaiting(why: string): void {
    for (const sequence of [...this.#waiting]) this.#end(sequence, 'error', why, null);
  }

  #place(sequence: OpenSequence): void {
    const placement = this.#options.route(sequence);
    if (!placement) {
      this.#waiting.add(sequence);
      return;
    }
    this.#waiting.delete(sequence);
    const { worker } = placement;
    const { spec, generatedTokenIds, resumeCount } = sequence;
    const there = resumedSpec(spec, generatedTokenIds, resumeCount);
    sequence.worker = worker;
    sequence.pending = placement;
    sequence.nameThere = there.sequenceId;
    worker.open.set(there.sequenceId, sequence);
    worker.link.send({ type: 'submit', spec: there, ageMs: this.#options.now() - sequence.submittedAt });
  }

  #tell(sequence: OpenSequence, reason: 'stop' | 'cancelled'): void {
    if (!this.#open.has(sequence)) return;
    sequence.endWith ??= reason;
    if (!sequence.worker) this.#end(sequence, sequence.endWith, '', null);
    else sequence.worker.link.send({ type: 'cancel', sequenceId: sequence.nameThere, reason });
  }

  /** Where no worker is there to say how it ended. */
  #end(sequence: OpenSequence, reason: EndReason, message: string, lastWorker: JoinedWorker | null): void {
    const { spec, start, generatedTokenIds, submittedAt, numericsIds } = sequence;
    const ended: EndedSequence = {
      sequenceId: spec.sequenceId,
      reason,
      message,
      account: sequence.accountBefore,
      promptTokenCount: spec.promptTokenIds.length,
      cachedTokenCount: start?.cachedTokenCount ?? 0,
      completionTokenCount: generatedTokenIds.length,
      preemptionCount: 0,
      speculatedTokenCount: 0,
      acceptedTokenCount: 0,
      guesses: noGuesses,
      queueMs: start?.queueMs ?? this.#options.now() - submittedAt,
      isMixedNumerics: numericsIds.size > 1,
    };
    sequence.worker = lastWorker;
    this.#finish(sequence, ended, lastWorker?.pathId ?? '', reason === 'error');
  }

  #finish(sequence: OpenSequence, ended: EndedSequence, pathId: string, isLost: boolean): void {
    const { worker, queue, isAccountFinal, resumeCount } = sequence;
    worker?.open.delete(sequence.nameThere);
    this.#open.delete(sequence);
    this.#waiting.delete(sequence);
    queue.push({
      kind: 'ended',
      at: this.#options.now(),
      ended,
      workerId: worker?.hello.workerId ?? '',
      pathId,
      isAccountFinal,
      isLost,
      resumeCount,
    });
    queue.end();
  }
}
