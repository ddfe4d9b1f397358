/**
 * Decoding at batch 16 beside one process that never rests: throughput kept of that without it, in turns, as the engine does
 * it (which gives a thread up) and held to one thread.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import { benchModel } from '../bench-model.ts';
import { type Figure, figure, spread } from '../figure.ts';
import { type StepRuns, stepRuns } from '../kernels/step-runs.ts';

const ROUNDS = 5;
const BLOCK_MS = 1500;
/** The engine looks at the machine every 200 ms. */
const SETTLING_MS = 700;
const LEAST_SHARE = 0.6;
const decode = { sequenceCount: 16, tokensEach: 1, contextLength: 128 };

export async function busyProcess(): Promise<readonly Figure[]> {
  const { path, label } = await benchModel();
  const runs = await stepRuns(path, 2, 16 * 160);
  await runs.prepare(runs.fastest);
  const clean = { two: [] as number[], one: [] as number[] };
  const beside = { two: [] as number[], one: [] as number[] };
  try {
    for (let round = 0; round < ROUNDS; round += 1) {
      clean.two.push(await tokensPerSecond(runs, 2));
      clean.one.push(await tokensPerSecond(runs, 1));
      const hog = spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' });
      try {
        await pause(100);
        beside.two.push(await tokensPerSecond(runs, 2));
        beside.one.push(await tokensPerSecond(runs, 1));
      } finally {
        hog.kill('SIGKILL');
        await once(hog, 'exit');
      }
    }
  } finally {
    runs.close();
  }
  const kept = beside.two.map((rate, index) => rate / (clean.two[index] ?? Number.NaN));
  const name = `${label}, batch 16`;
  return [
    figure(
      `${name}: throughput kept beside a busy process`,
      spread(kept),
      '',
      `>= ${LEAST_SHARE}`,
      (share) => share >= LEAST_SHARE,
    ),
    figure(`${name}: two threads, alone`, spread(clean.two), 'tok/s', '', null, 0),
    figure(`${name}: two threads asked for, beside it`, spread(beside.two), 'tok/s', '', null, 0),
    figure(`${name}: one thread, alone`, spread(clean.one), 'tok/s', '', null, 0),
    figure(`${name}: one thread, beside it`, spread(beside.one), 'tok/s', '', null, 0),
  ];
}

async function tokensPerSecond(runs: StepRuns, threadCount: number): Promise<number> {
  const settledAt = performance.now() + SETTLING_MS;
  while (performance.now() < settledAt) await runs.run(decode, runs.fastest, threadCount);
  const startedAt = performance.now();
  let steps = 0;
  while (performance.now() - startedAt < BLOCK_MS) {
    await runs.run(decode, runs.fastest, threadCount);
    steps += 1;
  }
  return (1000 * decode.sequenceCount * steps) / (performance.now() - startedAt);
}
