/**
 * What the gateway asks of a worker and waits for: calls with an answer, switches of the path, a canary's plan. Owned by
 * worker-fleet.ts, which brings the answers. Nothing waits for ever: a lost or silent worker is an error.
 */
import { randomUUID } from 'node:crypto';
import { pathFaults, pathId } from '@variator/kernels/execution-path';
import { type Fleet, FleetError } from './fleet.ts';
import type { Answer, JoinedWorker } from './joined-worker.ts';
import type { GatewayFrame, WorkerFrame } from './link-frames.ts';

const CALL_LIMIT_MS = 120_000;
/** Calibration waits for its small share of the device's time. */
const CALIBRATION_LIMIT_MS = 3_600_000;

type Calls = Pick<Fleet, 'prepare' | 'switchTo' | 'alternate' | 'check' | 'calibrate'>;

/** @param workerOf throws a FleetError where there is none of that name */
export function workerCalls(workerOf: (workerId: string) => JoinedWorker): Calls {
  /** Sends a frame that the worker answers by callId. @throws FleetError when it is lost or silent for `limitMs` */
  async function call<Type extends Answer['type']>(
    workerId: string,
    answerType: Type,
    frame: (callId: string) => GatewayFrame,
    limitMs = CALL_LIMIT_MS,
  ): Promise<Extract<Answer, { type: Type }>> {
    const worker = workerOf(workerId);
    const callId = randomUUID();
    const limit = timeLimit(`${workerId} did not answer within ${limitMs / 1000} s`, limitMs);
    try {
      const answer = await Promise.race([
        new Promise<Answer>((resolve, reject) => {
          worker.calls.set(callId, { resolve, reject });
          worker.link.send(frame(callId));
        }),
        limit.promise,
      ]);
      if (answer.type !== answerType)
        throw new FleetError(`${workerId} answered ${answer.type} to ${answerType}`);
      return answer as Extract<Answer, { type: Type }>;
    } finally {
      limit.clear();
      worker.calls.delete(callId);
    }
  }

  return {
    async prepare(workerId, path) {
      const { faults, prepareMs } = await call(workerId, 'prepared', (callId) => ({
        type: 'prepare',
        callId,
        path,
      }));
      return { faults, prepareMs };
    },
    async switchTo(workerId, path, rolloutId) {
      const worker = workerOf(workerId);
      const faults = pathFaults(path, worker.hello.envelope);
      if (faults.length > 0) throw new FleetError(faults.join(' '));
      const wanted = pathId(path);
      const limit = timeLimit(`${workerId} did not switch within ${CALL_LIMIT_MS / 1000} s`, CALL_LIMIT_MS);
      const waiting = { pathId: wanted, resolve: () => {}, reject: (_error: Error) => {} };
      try {
        await Promise.race([
          new Promise<void>((resolve, reject) => {
            waiting.resolve = resolve;
            waiting.reject = reject;
            worker.switches.push(waiting);
            worker.link.send({ type: 'switchTo', path, rolloutId });
          }),
          limit.promise,
        ]);
      } finally {
        limit.clear();
        worker.switches = worker.switches.filter((other) => other !== waiting);
      }
    },
    async alternate(workerId, { rolloutId, incumbent, candidate, blocks }) {
      const worker = workerOf(workerId);
      const frame: GatewayFrame = { type: 'alternate', rolloutId, incumbent, candidate, blocks };
      if (blocks.length === 0) {
        worker.link.send(frame);
        return { completedBlockCount: 0 };
      }
      if (worker.alternation)
        throw new FleetError(`${workerId} already alternates for rollout ${worker.alternation.rolloutId}.`);
      const completedBlockCount = await new Promise<number>((resolve, reject) => {
        worker.alternation = { rolloutId, resolve, reject };
        worker.link.send(frame);
      });
      return { completedBlockCount };
    },
    async check(workerId, path, prompts) {
      const answer = await call(workerId, 'checked', (callId) => ({ type: 'check', callId, path, prompts }));
      if (answer.fault !== '') throw new FleetError(answer.fault);
      return answer.outputs;
    },
    async calibrate(workerId, path, cases) {
      const frame = (callId: string): GatewayFrame => ({ type: 'calibrate', callId, path, cases });
      const answer = await call(workerId, 'calibrated', frame, CALIBRATION_LIMIT_MS);
      if (answer.fault !== '') throw new FleetError(answer.fault);
      return { stepCount: answer.stepCount, deviceMs: answer.deviceMs };
    },
  };
}

/** The worker's word on its path: whoever waits for it hears. `fault` is '' where it is live. */
export function settleSwitches(worker: JoinedWorker, settledPathId: string, fault: string): void {
  worker.switches = worker.switches.filter((waiting) => {
    if (waiting.pathId !== settledPathId) return true;
    if (fault === '') waiting.resolve();
    else waiting.reject(new FleetError(`${worker.hello.workerId} cannot switch: ${fault}`));
    return false;
  });
}

export function settleAlternation(
  worker: JoinedWorker,
  { rolloutId, completedBlockCount }: Extract<WorkerFrame, { type: 'alternated' }>,
): void {
  if (worker.alternation?.rolloutId !== rolloutId) return;
  worker.alternation.resolve(completedBlockCount);
  worker.alternation = null;
}

/** Nobody answers any more. */
export function failCalls(worker: JoinedWorker, error: FleetError): void {
  for (const { reject } of worker.calls.values()) reject(error);
  for (const { reject } of worker.switches) reject(error);
  worker.alternation?.reject(error);
}

function timeLimit(message: string, limitMs: number): { promise: Promise<never>; clear(): void } {
  let timer: NodeJS.Timeout | undefined;
  const promise = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new FleetError(message)), limitMs);
  });
  return { promise, clear: () => clearTimeout(timer) };
}
