/** Greedy answers on a real device through the step loop, while the live path changes under them. */
import { type ExecutionPath, pathId } from '@variator/kernels/execution-path';
import type { WorkerFrame } from '../fleet/link-frames.ts';
import { specOf } from '../fleet/real-workers.fixture.ts';
import type { Device } from './device.ts';
import { StepLoop } from './step-loop.ts';

type FrameOf<Type extends WorkerFrame['type']> = Extract<WorkerFrame, { type: Type }>;

export interface SwitchedAnswers {
  readonly device: Device;
  /** The first is live from the start. */
  readonly paths: readonly ExecutionPath[];
  /** The next path is asked for whenever so many more tokens have come. */
  readonly tokensPerPath: number;
  /** One answer each. */
  readonly prompts: readonly (readonly number[])[];
  readonly answerTokens: number;
}

export interface Switched {
  /** By sequence, the prompt's place as its name. */
  readonly tokens: ReadonlyMap<string, readonly number[]>;
  readonly ended: readonly FrameOf<'ended'>['ended'][];
  /** Ids of the paths that became live, in order. */
  readonly changedTo: readonly string[];
  readonly rows: readonly FrameOf<'stepRows'>['rows'][number][];
}

/** @throws Error when the loop refuses a path. The device stays open. */
export async function answerAcrossSwitches(answers: SwitchedAnswers): Promise<Switched> {
  const { device, paths, tokensPerPath, prompts, answerTokens } = answers;
  const [first] = paths;
  if (first === undefined) throw new Error('no path');
  await device.prepare(first);
  const tokens = new Map<string, number[]>();
  const ended: FrameOf<'ended'>['ended'][] = [];
  const changedTo: string[] = [];
  const rows: FrameOf<'stepRows'>['rows'][number][] = [];
  let tokenCount = 0;
  let next = 1;
  const loop = new StepLoop({
    ...{ device, path: first, workerId: 'w', bootId: 'b', calibrationShareLimit: 0 },
    now: () => performance.now(),
    log: () => {},
    send(frame) {
      if (frame.type === 'stepRows') rows.push(...frame.rows);
      if (frame.type === 'pathChanged') changedTo.push(pathId(frame.path));
      if (frame.type === 'switchRefused') throw new Error(frame.fault);
      if (frame.type === 'ended') ended.push(frame.ended);
      if (frame.type !== 'tokens') return;
      for (const { sequenceId, tokenId } of frame.events) {
        tokens.set(sequenceId, [...(tokens.get(sequenceId) ?? []), tokenId]);
        tokenCount += 1;
        const path = tokenCount % tokensPerPath === 0 ? paths[next] : undefined;
        if (path === undefined) continue;
        next += 1;
        loop.receive({ type: 'switchTo', path, rolloutId: '' });
      }
    },
  });
  for (const [index, promptTokenIds] of prompts.entries()) {
    loop.receive({ type: 'submit', ageMs: 0, spec: specOf(String(index), promptTokenIds, answerTokens) });
  }
  loop.receive({ type: 'drain' });
  await loop.run();
  return { tokens, ended, changedTo, rows };
}

/** Share of the tokens of `a` before the first one of each answer at which `b` differs. */
export function sameShare(a: Switched, b: Switched): number {
  let same = 0;
  let count = 0;
  for (const [sequenceId, own] of a.tokens) {
    const other = b.tokens.get(sequenceId) ?? [];
    const differing = own.findIndex((tokenId, place) => tokenId !== other[place]);
    same += differing === -1 ? own.length : differing;
    count += own.length;
  }
  return same / count;
}
