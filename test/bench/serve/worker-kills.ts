/**
 * Workers killed under load, a hundred times: does every stream end, and with the tokens of the undisturbed run? Real worker
 * processes on the story model's reference path, half of the streams greedy, half seeded with penalties. Then the same once
 * for every case of the dense golden models: their tokens after a worker's death in the middle are the file's own.
 */
import { setTimeout as pause } from 'node:timers/promises';
import type { SequenceSpec } from '@variator/scheduler/sequence';
import {
  type RealWorkers,
  readStream,
  realWorkers,
  specOf,
} from '../../../apps/engine/fleet/real-workers.fixture.ts';
import { readGolden, tinyModels } from '../../../packages/kernels/golden-files.fixture.ts';
import { type Figure, figure, spread } from '../figure.ts';

const KILL_COUNT = 100;
const STREAM_COUNT = 12;
const TOKENS = 300;
/** After both workers are there again. */
const BETWEEN_KILLS_MS = 400;

const specs: readonly SequenceSpec[] = Array.from({ length: STREAM_COUNT }, (_, at) =>
  specOf(
    'undisturbed',
    Array.from({ length: 20 + 9 * at }, (_, index) => 10 + ((at * 37 + index * 13) % 900)),
    TOKENS,
    at % 2 === 0
      ? {}
      : { temperature: 0.9, topP: 0.95, seed: 77 + at, frequencyPenalty: 0.4, repetitionPenalty: 1.1 },
  ),
);

export async function benchWorkerKills(): Promise<readonly Figure[]> {
  const workers = await realWorkers({ workerCount: 2 });
  try {
    const undisturbed = await Promise.all(
      specs.map((spec, at) =>
        readStream(workers.fleet.submit({ ...spec, sequenceId: `undisturbed-${at}` }, 0)),
      ),
    );
    const tally = { streams: 0, resumed: 0, unequal: 0, failed: 0 };
    const gapsMs: number[] = [];
    let isOver = false;
    const loops = specs.map(async (spec, at) => {
      for (let round = 0; !isOver; round += 1) {
        let lastAt = performance.now();
        let longestMs = 0;
        const stream = workers.fleet.submit({ ...spec, sequenceId: `stream-${at}-${round}` }, 0);
        const read = await readStream(stream, () => {
          longestMs = Math.max(longestMs, performance.now() - lastAt);
          lastAt = performance.now();
        });
        tally.streams += 1;
        if (read.end.resumeCount > 0) {
          tally.resumed += 1;
          gapsMs.push(longestMs);
        }
        if (read.ended.reason !== 'length') tally.failed += 1;
        else if (read.tokenIds.join() !== undisturbed[at]?.tokenIds.join()) tally.unequal += 1;
      }
    });
    for (let kill = 0; kill < KILL_COUNT; kill += 1) {
      await workers.joinedCount(2);
      await pause(BETWEEN_KILLS_MS);
      workers.kill(kill % 2);
      // Until its death was seen, or the next would be counted while it is still listed.
      while (workers.fleet.workers().length === 2) await pause(5);
    }
    isOver = true;
    await Promise.all(loops);
    const sorted = [...gapsMs].sort((a, b) => a - b);
    return [
      {
        figure: `${KILL_COUNT} SIGKILLs of workers under load: streams that failed / with other tokens`,
        goal: '0 / 0',
        measured: `${tally.failed} / ${tally.unequal}`,
        interval: `${tally.streams} streams of ${TOKENS} tokens, ${tally.resumed} of them went on elsewhere`,
        isMet: tally.failed + tally.unequal === 0 && tally.resumed > 0,
      },
      figure('longest gap of a stream that went on elsewhere', spread(gapsMs), 'ms', '', null, 0),
      {
        figure: 'the same, p99',
        goal: '<= 500 ms with a spare',
        measured: `${(sorted[Math.ceil(0.99 * sorted.length) - 1] ?? Number.NaN).toFixed(0)} ms`,
        interval: `${sorted.length} streams`,
        isMet: (sorted[Math.ceil(0.99 * sorted.length) - 1] ?? Number.POSITIVE_INFINITY) <= 500,
      },
    ];
  } finally {
    await workers.close();
  }
}

export async function benchGoldenAfterDeath(): Promise<readonly Figure[]> {
  let caseCount = 0;
  let equalCount = 0;
  const names: string[] = [];
  for (const name of [...tinyModels, 'stories-5m']) {
    const golden = readGolden(name);
    if (golden === null) continue;
    names.push(name);
    const workers: RealWorkers = await realWorkers({ workerCount: 2, modelPath: golden.modelPath });
    try {
      for (const [index, { prompt, greedy }] of golden.cases.entries()) {
        caseCount += 1;
        const { tokenIds, isDisturbed } = await disturbedTokens(
          workers,
          `${name}-${index}`,
          prompt,
          greedy.length,
        );
        if (isDisturbed && tokenIds.join() === greedy.join()) equalCount += 1;
      }
    } finally {
      await workers.close();
    }
  }
  const figure: Figure = {
    figure: 'golden cases whose tokens are the same after the death of all workers in the middle',
    goal: 'all',
    measured: `${equalCount} of ${caseCount}`,
    interval: names.join(', ') || 'SKIPPED: no golden models',
    isMet: caseCount > 0 && equalCount === caseCount,
  };
  return [figure];
}

/** Kills whoever has it early on; again, where a worker was faster than its death. */
async function disturbedTokens(
  workers: RealWorkers,
  name: string,
  prompt: readonly number[],
  maxTokens: number,
) {
  let tokenIds: readonly number[] = [];
  for (let attempt = 0; attempt < 20; attempt += 1) {
    await workers.joinedCount(2);
    const killAt = 1 + (attempt % Math.max(1, Math.floor(maxTokens / 2)));
    const stream = workers.fleet.submit(specOf(`${name}-${attempt}`, prompt, maxTokens), 0);
    const read = await readStream(stream, (count) => {
      if (count !== killAt) return;
      workers.kill(0);
      workers.kill(1);
    });
    tokenIds = read.tokenIds;
    if (read.end.resumeCount > 0) return { tokenIds, isDisturbed: true };
  }
  return { tokenIds, isDisturbed: false };
}
