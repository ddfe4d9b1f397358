/**
 * The worker's own step loop on the CPU device in this process: what a stream feels of a step or a switch, without gateway and
 * sockets in between. For the benches switch.ts and adaptive.ts. Times are `performance.now()`.
 */
import type { StepRow } from '@variator/clickhouse/step-row';
import { type Envelope, type ExecutionPath, pathId } from '@variator/kernels/execution-path';
import { loadModel } from '@variator/kernels/model';
import type { BatchEntry } from '@variator/scheduler/batch';
import type { EndedSequence, SequenceSpec, TokenEvent } from '@variator/scheduler/sequence';
import type { StepTimeFit } from '@variator/scheduler/step-time';
import { cpuDevice } from '../../../apps/engine/worker/cpu-device.ts';
import { StepLoop } from '../../../apps/engine/worker/step-loop.ts';

export interface InProcessOptions {
  readonly model: string;
  readonly path: (envelope: Envelope) => ExecutionPath;
  readonly kvMemoryBytes: number;
  readonly maxModelLenTokens: number;
  readonly packedWeightsDir: string | null;
}

/** What the bench hears; each is optional, and may be changed while the worker runs. */
export interface Ears {
  /** After a step, with the tokens that it gave. */
  onTokens?: (events: readonly TokenEvent[], at: number) => void;
  onEnded?: (ended: EndedSequence, at: number) => void;
  onRow?: (row: StepRow) => void;
  /** Once the device has run them. */
  onRan?: (entries: readonly BatchEntry[]) => void;
  onConverted?: (convertMs: number, blockCount: number) => void;
}

export interface InProcessWorker {
  readonly envelope: Envelope;
  readonly ears: Ears;
  submit(spec: SequenceSpec): void;
  cancel(sequenceId: string): void;
  useFit(fit: StepTimeFit): void;
  /** @throws Error where the worker refuses the path */
  prepare(path: ExecutionPath): Promise<{ prepareMs: number }>;
  /** Resolves once the path is live. @returns milliseconds from asking @throws Error where the worker refuses it */
  switchTo(path: ExecutionPath): Promise<number>;
  close(): Promise<void>;
}

export async function inProcessWorker(options: InProcessOptions): Promise<InProcessWorker> {
  const { model, kvMemoryBytes, maxModelLenTokens, packedWeightsDir } = options;
  const device = cpuDevice(await loadModel(model), {
    ...{ threadCount: 2, isa: 'all', kvMemoryBytes, maxModelLenTokens, packedWeightsDir },
  });
  const path = options.path(device.envelope);
  await device.prepare(path);
  const ears: Ears = {};
  const answers = new Map<string, { resolve: (ms: number) => void; reject: (error: Error) => void }>();
  const settle = (key: string, fault: string, ms: number): void => {
    const waiting = answers.get(key);
    answers.delete(key);
    if (fault === '') waiting?.resolve(ms);
    else waiting?.reject(new Error(fault));
  };
  let callCount = 0;
  const loop = new StepLoop({
    ...{ path, workerId: 'bench', bootId: 'bench', calibrationShareLimit: 0 },
    device: {
      ...device,
      async run(live, entries, blocks) {
        const result = await device.run(live, entries, blocks);
        ears.onRan?.(entries);
        return result;
      },
      async keepKvFor(live, blockIds) {
        const kept = await device.keepKvFor(live, blockIds);
        ears.onConverted?.(kept.convertMs, blockIds.length);
        return kept;
      },
    },
    now: () => performance.now(),
    log: () => {},
    send(frame) {
      const at = performance.now();
      if (frame.type === 'tokens') ears.onTokens?.(frame.events, at);
      else if (frame.type === 'ended') ears.onEnded?.(frame.ended, at);
      else if (frame.type === 'stepRows') for (const row of frame.rows) ears.onRow?.(row);
      else if (frame.type === 'prepared') settle(frame.callId, frame.faults.join(' '), frame.prepareMs);
      else if (frame.type === 'pathChanged') settle(pathId(frame.path), '', at);
      else if (frame.type === 'switchRefused') settle(frame.pathId, frame.fault, at);
    },
  });
  const running = loop.run();
  const asked = (key: string, ask: () => void) =>
    new Promise<number>((resolve, reject) => {
      answers.set(key, { resolve, reject });
      ask();
    });
  return {
    envelope: device.envelope,
    ears,
    submit: (spec) => loop.receive({ type: 'submit', spec, ageMs: 0 }),
    cancel: (sequenceId) => loop.receive({ type: 'cancel', sequenceId, reason: 'cancelled' }),
    useFit: (fit) => loop.receive({ type: 'useFit', fit }),
    async prepare(wanted) {
      callCount += 1;
      const callId = `prepare-${callCount}`;
      const prepareMs = await asked(callId, () => loop.receive({ type: 'prepare', callId, path: wanted }));
      return { prepareMs };
    },
    async switchTo(wanted) {
      const startedAt = performance.now();
      const frame = { type: 'switchTo', path: wanted, rolloutId: '' } as const;
      return (await asked(pathId(wanted), () => loop.receive(frame))) - startedAt;
    },
    async close() {
      loop.stop();
      await running;
      device.close();
    },
  };
}

/** A sequence that goes on for so many tokens, whatever they are. */
export function plainSequence(
  sequenceId: string,
  promptTokenIds: readonly number[],
  maxTokens: number,
): SequenceSpec {
  return {
    ...{ sequenceId, promptTokenIds, maxTokens, generatedTokenIds: [], stopTokenIds: [] },
    sampling: { temperature: 0, topP: 1, topK: 0, seed: 0 },
    tenant: 'bench',
    program: '',
    serviceTier: 'default',
    objectives: { ttftMs: 0, itlMs: 0 },
    ageLimits: null,
    cacheSalt: '',
  };
}
