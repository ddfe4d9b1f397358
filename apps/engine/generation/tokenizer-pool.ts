/**
 * One or two threads that turn messages into prompt text and text into token ids, so that a long prompt never holds the
 * gateway's event loop. Called by accept-request.ts. The queue is bounded, every job has a time limit; a thread that
 * exceeds it, or dies, is replaced and only its own job fails. It decides nothing about requests.
 */
import { Worker } from 'node:worker_threads';
import type { LoadedTokenizer } from '@variator/kernels/model';
import { ModelError } from '@variator/kernels/model/model-error';
import type { ChatMessage, RenderedPrompt } from './chat-template.ts';
import type { DecodedTokens, Guard, PromptEncoderData } from './prompt-encoder.ts';

export type ThreadJob =
  | { readonly kind: 'render'; readonly messages: readonly ChatMessage[]; readonly isAnswerOpened: boolean }
  | { readonly kind: 'encode'; readonly text: string; readonly guard: Guard }
  | { readonly kind: 'decode'; readonly tokenIds: readonly number[] };

export type ThreadAnswer =
  | { readonly kind: 'ready' }
  /** With its token ids where it is short: a second way to the thread would take longer than they do. */
  | ({ readonly kind: 'rendered'; readonly tokenIds: Int32Array | null } & RenderedPrompt)
  | { readonly kind: 'encoded'; readonly tokenIds: Int32Array }
  | ({ readonly kind: 'decoded' } & DecodedTokens)
  | { readonly kind: 'refused'; readonly isTemplate: boolean; readonly message: string };

/** `refused`: the template said no. `timedOut`, `lost`: the job's thread was ended or died. `full`, `closed`: not begun. */
export type TokenizerFault = 'refused' | 'failed' | 'timedOut' | 'lost' | 'full' | 'closed';

export class TokenizerError extends Error {
  override readonly name = 'TokenizerError';
  readonly fault: TokenizerFault;
  constructor(fault: TokenizerFault, message: string) {
    super(message);
    this.fault = fault;
  }
}

export interface TokenizerPoolOptions {
  readonly tokenizer: LoadedTokenizer;
  readonly threadCount: number;
  readonly maxRenderedChars: number;
  readonly templateTimeLimitMs?: number;
  readonly encodeTimeLimitMs?: number;
  readonly maxQueuedCount?: number;
}

interface PendingJob {
  readonly job: ThreadJob;
  readonly resolve: (answer: ThreadAnswer) => void;
  readonly reject: (error: Error) => void;
}

interface Thread {
  readonly worker: Worker;
  isReady: boolean;
  pending: PendingJob | null;
  timer: NodeJS.Timeout | null;
}

/** A tokenizer whose threads die this often before they are ready cannot be loaded at all. */
const MAX_FAILED_STARTS = 3;
const MAX_THREAD_MEMORY_MB = 1536;
/** Far above what the largest vocabularies take on a busy machine. */
const START_TIME_LIMIT_MS = 60_000;

export class TokenizerPool {
  readonly #options: Required<TokenizerPoolOptions>;
  readonly #threads = new Set<Thread>();
  readonly #queue: PendingJob[] = [];
  readonly #ready: Promise<void>;
  #settleReady: (fault: Error | null) => void = () => {};
  /** Threads that have been told to end. */
  #ending: Promise<unknown> = Promise.resolve();
  #failedStartCount = 0;
  #startFault: Error | null = null;
  #isClosed = false;

  constructor(options: TokenizerPoolOptions) {
    this.#options = { templateTimeLimitMs: 2000, encodeTimeLimitMs: 10_000, maxQueuedCount: 512, ...options };
    this.#ready = new Promise((resolve, reject) => {
      this.#settleReady = (fault) => (fault === null ? resolve() : reject(fault));
    });
    this.#ready.catch((fault: Error) => {
      this.#startFault = fault;
    });
    for (let index = 0; index < options.threadCount; index += 1) this.#start();
  }

  /** Resolves once a thread has loaded the tokenizer. @throws ModelError when none can */
  ready(): Promise<void> {
    return this.#ready;
  }

  /** @throws TokenizerError */
  async render(
    messages: readonly ChatMessage[],
    isAnswerOpened = true,
  ): Promise<RenderedPrompt & { readonly tokenIds: readonly number[] | null }> {
    const answer = await this.#run({ kind: 'render', messages, isAnswerOpened });
    if (answer.kind !== 'rendered') throw new TokenizerError('failed', `unexpected answer ${answer.kind}`);
    const { text, guard, tokenIds } = answer;
    return { text, guard, tokenIds: tokenIds === null ? null : Array.from(tokenIds) };
  }

  /** @throws TokenizerError */
  async encode(text: string, guard: Guard): Promise<number[]> {
    const answer = await this.#run({ kind: 'encode', text, guard });
    if (answer.kind !== 'encoded') throw new TokenizerError('failed', `unexpected answer ${answer.kind}`);
    return Array.from(answer.tokenIds);
  }

  /** @throws TokenizerError */
  async decode(tokenIds: readonly number[]): Promise<DecodedTokens> {
    const answer = await this.#run({ kind: 'decode', tokenIds });
    if (answer.kind !== 'decoded') throw new TokenizerError('failed', `unexpected answer ${answer.kind}`);
    return { text: answer.text, tokens: answer.tokens };
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    for (const pending of this.#queue.splice(0)) pending.reject(closedError());
    const threads = [...this.#threads];
    this.#threads.clear();
    for (const thread of threads) {
      if (thread.timer !== null) clearTimeout(thread.timer);
      thread.pending?.reject(closedError());
    }
    await Promise.all([this.#ending, ...threads.map((thread) => thread.worker.terminate())]);
  }

  #run(job: ThreadJob): Promise<ThreadAnswer> {
    if (this.#isClosed) return Promise.reject(closedError());
    if (this.#startFault !== null)
      return Promise.reject(new TokenizerError('failed', this.#startFault.message));
    if (this.#queue.length >= this.#options.maxQueuedCount) {
      return Promise.reject(new TokenizerError('full', 'too many prompts are waiting to be tokenised'));
    }
    return new Promise((resolve, reject) => {
      this.#queue.push({ job, resolve, reject });
      this.#dispatch();
    });
  }

  #dispatch(): void {
    for (const thread of this.#threads) {
      if (!thread.isReady || thread.pending !== null) continue;
      const pending = this.#queue.shift();
      if (pending === undefined) return;
      thread.pending = pending;
      const limitMs =
        pending.job.kind === 'render' ? this.#options.templateTimeLimitMs : this.#options.encodeTimeLimitMs;
      thread.timer = setTimeout(() => {
        this.#replace(thread, new TokenizerError('timedOut', `took longer than ${limitMs} ms and was ended`));
      }, limitMs);
      thread.worker.postMessage(pending.job);
    }
  }

  #start(): void {
    const data: PromptEncoderData = {
      tokenizer: this.#options.tokenizer,
      maxRenderedChars: this.#options.maxRenderedChars,
    };
    const worker = new Worker(new URL('./tokenizer-thread.mjs', import.meta.url), {
      workerData: data,
      execArgv: [],
      name: 'tokenizer',
      resourceLimits: { maxOldGenerationSizeMb: MAX_THREAD_MEMORY_MB },
    });
    const thread: Thread = { worker, isReady: false, pending: null, timer: null };
    this.#threads.add(thread);
    thread.timer = setTimeout(() => {
      this.#replace(thread, new TokenizerError('timedOut', `took longer than ${START_TIME_LIMIT_MS} ms`));
    }, START_TIME_LIMIT_MS);
    worker.on('message', (answer: ThreadAnswer) => this.#take(thread, answer));
    worker.on('error', (error) => this.#replace(thread, new TokenizerError('lost', error.message)));
    worker.on('exit', (code) =>
      this.#replace(thread, new TokenizerError('lost', `the tokenizer thread ended with code ${code}`)),
    );
  }

  #take(thread: Thread, answer: ThreadAnswer): void {
    if (thread.timer !== null) clearTimeout(thread.timer);
    thread.timer = null;
    if (answer.kind === 'ready') {
      thread.isReady = true;
      this.#failedStartCount = 0;
      this.#settleReady(null);
    } else {
      const { pending } = thread;
      thread.pending = null;
      if (answer.kind === 'refused') {
        pending?.reject(new TokenizerError(answer.isTemplate ? 'refused' : 'failed', answer.message));
      } else {
        pending?.resolve(answer);
      }
    }
    this.#dispatch();
  }

  /** Ends a thread once, fails its job, and starts another in its place. */
  #replace(thread: Thread, fault: TokenizerError): void {
    if (!this.#threads.delete(thread)) return;
    if (thread.timer !== null) clearTimeout(thread.timer);
    thread.pending?.reject(fault);
    this.#ending = Promise.all([this.#ending, thread.worker.terminate()]);
    if (this.#isClosed) return;
    if (!thread.isReady) this.#failedStartCount += 1;
    if (this.#failedStartCount < MAX_FAILED_STARTS) {
      this.#start();
      return;
    }
    const cannot = new ModelError(
      this.#options.tokenizer.file,
      `the tokenizer cannot be loaded (${fault.message}).`,
    );
    this.#settleReady(cannot);
    this.#startFault = cannot;
    for (const pending of this.#queue.splice(0)) pending.reject(cannot);
  }
}

const closedError = (): TokenizerError => new TokenizerError('closed', 'the gateway is ending');
