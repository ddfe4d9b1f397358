/**
 * One window of the bench adaptive.ts: the phase before leads in on its path, then the phase itself, on the same path or on
 * another that the worker switches to at the border while streams are open. Says what was served in it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import type { ExecutionPath } from '@variator/kernels/execution-path';
import type { StepSample } from '@variator/optimizer/step-sample';
import { type AdaptivePhase, LEAD_MS } from './adaptive-plan.ts';
import { clientsOf, type PlannedSequence } from './adaptive-traffic.ts';
import type { InProcessWorker } from './in-process-worker.ts';

export interface Traffic {
  readonly phase: AdaptivePhase;
  readonly sequences: readonly PlannedSequence[];
  readonly path: ExecutionPath;
}

export interface Served {
  /** What counts, a second: tokens of requests within the phase's objectives; without any, of prompts and answers. */
  readonly tokensPerSecond: number;
  readonly requestCount: number;
  /** Of them, those beyond an objective. */
  readonly lateCount: number;
  /** Mean over the window's steps, by their time. */
  readonly foreignCpuShare: number;
  /** The window's steps, for a fit. */
  readonly steps: readonly StepSample[];
  /** From asking for the phase's path to its first step; 0 where it is that of the phase before. */
  readonly switchMs: number;
}

interface Request {
  readonly planned: PlannedSequence;
  readonly isLead: boolean;
  readonly arrivedAt: number;
  readonly promptTokenCount: number;
  reachedTokenCount: number;
  firstAt: number | null;
  lastAt: number;
  tokenCount: number;
  isEnded: boolean;
}

/** @param salt another for each window: nobody finds what an earlier one has cached */
export async function serveWindow(
  worker: InProcessWorker,
  lead: Traffic,
  main: Traffic,
  salt: string,
): Promise<Served> {
  const requests = new Map<string, Request>();
  let servedTokenCount = 0;
  let steps: StepSample[] = [];
  worker.ears.onRan = (entries) => {
    for (const { sequenceId, contextLength, tokenIds } of entries) {
      const request = requests.get(sequenceId);
      if (request === undefined) continue;
      const reached = Math.min(request.promptTokenCount, contextLength + tokenIds.length);
      servedTokenCount += Math.max(0, reached - request.reachedTokenCount);
      request.reachedTokenCount = Math.max(reached, request.reachedTokenCount);
    }
  };
  worker.ears.onTokens = (events, at) => {
    for (const { sequenceId } of events) {
      const request = requests.get(sequenceId);
      if (request === undefined) continue;
      request.firstAt ??= at;
      request.lastAt = at;
      request.tokenCount += 1;
      servedTokenCount += 1;
    }
  };
  worker.ears.onRow = (row) => {
    steps.push({ ...row, at: row.startedAt });
  };
  worker.ears.onEnded = ({ sequenceId, reason, message }) => {
    const request = requests.get(sequenceId);
    if (reason === 'error') throw new Error(message);
    if (request === undefined) return;
    request.isEnded = true;
    driver?.onEnded(sequenceId);
  };
  const submit = (planned: PlannedSequence, isLead: boolean): string => {
    const sequenceId = `${salt} ${isLead ? 'lead' : 'main'} ${planned.spec.sequenceId}`;
    requests.set(sequenceId, {
      ...{
        planned,
        isLead,
        arrivedAt: performance.now(),
        promptTokenCount: planned.spec.promptTokenIds.length,
      },
      ...{ reachedTokenCount: 0, firstAt: null, lastAt: 0, tokenCount: 0, isEnded: false },
    });
    worker.submit({ ...planned.spec, sequenceId, cacheSalt: salt });
    return sequenceId;
  };
  let busy: ChildProcess | null = null;
  let driver: Driver | null = null;
  try {
    await worker.switchTo(lead.path);
    busy = await setBusy(busy, lead.phase.isBesideBusyProcess);
    driver = drive(lead, (planned) => submit(planned, true));
    await pause(LEAD_MS);
    driver.stop();
    busy = await setBusy(busy, main.phase.isBesideBusyProcess);
    for (const [sequenceId, { firstAt }] of requests) if (firstAt === null) worker.cancel(sequenceId);

    const startedAt = performance.now();
    servedTokenCount = 0;
    steps = [];
    let switchMs = 0;
    if (main.path !== lead.path) {
      void worker.switchTo(main.path).then((ms) => {
        switchMs = ms;
      });
    }
    driver = drive(main, (planned) => submit(planned, false));
    await pause(main.phase.durationMs);
    const seconds = (performance.now() - startedAt) / 1000;
    driver.stop();
    const own = [...requests.values()].filter(({ isLead }) => !isLead);
    const { objectives } = main.phase;
    const late = objectives === null ? [] : own.filter((request) => isLate(request, objectives));
    const goodTokenCount = own
      .filter((request) => !late.includes(request))
      .reduce((sum, { tokenCount }) => sum + tokenCount, 0);
    const counted = objectives === null ? servedTokenCount : goodTokenCount;
    const deviceMs = steps.reduce((sum, step) => sum + step.deviceMs, 0);
    const foreignMs = steps.reduce((sum, step) => sum + step.foreignCpuShare * step.deviceMs, 0);
    return {
      steps,
      tokensPerSecond: counted / seconds,
      requestCount: own.length,
      lateCount: late.length,
      foreignCpuShare: deviceMs === 0 ? 0 : foreignMs / deviceMs,
      switchMs,
    };
  } finally {
    driver?.stop();
    await setBusy(busy, false);
    for (const [sequenceId, { isEnded }] of requests) if (!isEnded) worker.cancel(sequenceId);
    while ([...requests.values()].some(({ isEnded }) => !isEnded)) await pause(1);
  }
}

/** One that waits for its first token is late when the objective has passed; what its gaps are shows with two tokens. */
function isLate(
  { arrivedAt, firstAt, lastAt, tokenCount }: Request,
  { ttftMs, itlMs }: { readonly ttftMs: number; readonly itlMs: number },
): boolean {
  if ((firstAt ?? performance.now()) - arrivedAt > ttftMs) return true;
  return firstAt !== null && tokenCount > 1 && (lastAt - firstAt) / (tokenCount - 1) > itlMs;
}

interface Driver {
  onEnded(sequenceId: string): void;
  stop(): void;
}

/** Submits a phase's sequences: at their times, or whenever one of its clients is free. */
function drive({ phase, sequences }: Traffic, submit: (planned: PlannedSequence) => string): Driver {
  const timers = new Set<NodeJS.Timeout>();
  const own = new Set<string>();
  let next = 0;
  let isStopped = false;
  const send = (): void => {
    const planned = sequences[next];
    if (isStopped) return;
    if (planned === undefined) throw new Error(`The phase ${phase.name} ran out of requests.`);
    next += 1;
    own.add(submit(planned));
  };
  const after = (ms: number, act: () => void): void => {
    const timer = setTimeout(() => {
      timers.delete(timer);
      act();
    }, ms);
    timers.add(timer);
  };
  if (phase.arrivals.kind === 'open') for (const { atMs } of sequences) after(atMs ?? 0, send);
  else for (let client = 0; client < clientsOf(phase); client += 1) send();
  return {
    onEnded(sequenceId) {
      if (phase.arrivals.kind === 'closed' && own.has(sequenceId)) after(phase.arrivals.thinkMs, send);
    },
    stop() {
      isStopped = true;
      for (const timer of timers) clearTimeout(timer);
    },
  };
}

/** Starts or ends the busy process as wanted. */
async function setBusy(busy: ChildProcess | null, isWanted: boolean): Promise<ChildProcess | null> {
  if (isWanted) return busy ?? spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' });
  if (busy !== null) {
    busy.kill('SIGKILL');
    await once(busy, 'exit');
  }
  return null;
}
