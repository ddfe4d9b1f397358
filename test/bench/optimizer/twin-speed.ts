/**
 * How fast the twin is, and whether its memory grows: chats with Azure's conversation lengths at 20 requests a second on
 * generated H100s, whose fit was learned from their steps; and a million of them. One such H100 saturates at these 20 requests, so there are two.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { openLoop } from '@variator/optimizer/arrival-sources';
import { fitStepTime } from '@variator/optimizer/fit-step-time';
import { h100Envelope, h100Path, h100Steps } from '@variator/optimizer/fixtures/h100-steps';
import { stepNoise } from '@variator/optimizer/replay-draws';
import { rooflinePrior } from '@variator/optimizer/roofline-prior';
import { seededRandom } from '@variator/optimizer/seeded-random';
import { promptOf } from '@variator/optimizer/synthetic-prompts';
import { runTwin, type TwinRequest } from '@variator/optimizer/twin';
import { TwinRouter } from '@variator/optimizer/twin-router';
import { TwinTotals } from '@variator/optimizer/twin-totals';
import { TwinWorker } from '@variator/optimizer/twin-worker';
import { collectGarbage } from '../../collect-garbage.ts';
import { root } from '../../running-product.ts';
import { type Figure, figure, spread } from '../figure.ts';

const TRACE = join(root, '..', 'shared', 'traces', 'azure-llm-2023', 'AzureLLMInferenceTrace_conv.csv');
const REQUESTS_PER_SECOND = 20;
const WORKER_COUNT = 2;
const RUN_COUNT = 5;
const RUN_REQUESTS = 12_000;
const MANY_REQUESTS = 1_000_000;
const SEED = 6;

interface Lengths {
  readonly prompt: number;
  readonly completion: number;
}

export async function benchTwinSpeed(): Promise<readonly Figure[]> {
  const { lengthsOf, said } = conversationLengths();
  const runs = Array.from({ length: RUN_COUNT }, (_, index) => run(lengthsOf, RUN_REQUESTS, SEED + index));
  const speeds = runs.map(({ speed }) => speed);
  const many = run(lengthsOf, MANY_REQUESTS, SEED);
  const [early = 0] = many.heapMb;
  const late = Math.max(...many.heapMb.slice(1));
  return [
    { figure: 'lengths', goal: '', measured: said, interval: '', isMet: null },
    figure(
      `virtual to real time at ${REQUESTS_PER_SECOND} requests/s on ${WORKER_COUNT} H100s`,
      spread(speeds),
      'x',
      '>= 500',
      (median) => median >= 500,
      0,
    ),
    figure(
      'the same to the time it had a core',
      spread(runs.map(({ cpuSpeed }) => cpuSpeed)),
      'x',
      '',
      null,
      0,
    ),
    {
      figure: 'a million requests: heap after each tenth of them',
      goal: 'no growth: the most after the first tenth <= 1.1 x the first',
      measured: `${early.toFixed(1)} to ${late.toFixed(1)} MB`,
      interval: many.heapMb.map((mb) => mb.toFixed(1)).join(', '),
      isMet: late <= 1.1 * early,
    },
    {
      figure: 'a million requests: virtual to real time',
      goal: '',
      measured: `${many.speed.toFixed(0)} x`,
      interval: many.words,
      isMet: null,
    },
  ];
}

interface Run {
  readonly speed: number;
  /** To the time that this process had a core. */
  readonly cpuSpeed: number;
  readonly words: string;
  /** After each tenth of the requests, everything that can be collected collected. */
  readonly heapMb: readonly number[];
}

function run(lengthsOf: (uniform: number) => Lengths, count: number, seed: number): Run {
  const learned = fitStepTime({
    samples: h100Steps('chat', 2000, 1),
    prior: rooflinePrior(h100Envelope, h100Path),
    ...{ deviceKind: 'h100', modelHash: 'an-8b', kernelsId: 'k', now: 0 },
  });
  const workers = Array.from(
    { length: WORKER_COUNT },
    (_, index) =>
      new TwinWorker({
        envelope: h100Envelope,
        path: h100Path,
        fit: learned,
        ...{ seed: seed + 100 * index, noise: stepNoise(learned), betweenStepsMs: 0.3 },
      }),
  );
  const heapMb: number[] = [];
  const totals = new TwinTotals();
  const startedAt = performance.now();
  const cpuBefore = process.cpuUsage();
  const virtualMs = runTwin({
    workers,
    router: new TwinRouter(workers),
    source: openLoop(requests(lengthsOf, count, seed, () => heapMb.push(collectedHeapMb()))),
    observer: totals,
  });
  const realMs = performance.now() - startedAt;
  const cpuMs = process.cpuUsage(cpuBefore).user / 1000;
  const { ttftMs, tpotMs, completionTokenCount, requestCount } = totals;
  const [ttft, tpot] = [ttftMs.quantiles(), tpotMs.quantiles()];
  return {
    speed: virtualMs / realMs,
    cpuSpeed: virtualMs / cpuMs,
    words:
      `${(virtualMs / 3.6e6).toFixed(1)} h in ${(realMs / 1000).toFixed(0)} s; ${sum(workers.map(({ stepCount }) => stepCount))} steps, ` +
      `${((1000 * realMs) / requestCount).toFixed(0)} µs a request, ${(completionTokenCount / (virtualMs / 1000)).toFixed(0)} tokens/s, ` +
      `TTFT p50 ${ttft?.p50.toFixed(0)} p99 ${ttft?.p99.toFixed(0)} ms, TPOT p50 ${tpot?.p50.toFixed(1)} ms`,
    heapMb,
  };
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

function collectedHeapMb(): number {
  collectGarbage();
  return process.memoryUsage().heapUsed / 1e6;
}

function* requests(
  lengthsOf: (uniform: number) => Lengths,
  count: number,
  seed: number,
  onTenth: () => void,
): Generator<TwinRequest> {
  const random = seededRandom(seed);
  let at = 0;
  for (let index = 0; index < count; index += 1) {
    at += (-1000 * Math.log(1 - random.uniform())) / REQUESTS_PER_SECOND;
    const { prompt, completion } = lengthsOf(random.uniform());
    if (index > 0 && index % (count / 10) === 0) onTenth();
    yield {
      at,
      spec: {
        sequenceId: String(index),
        promptTokenIds: promptOf({ promptTokenCount: prompt, session: '' }, index, 0),
        generatedTokenIds: [],
        sampling: { temperature: 0, topP: 1, topK: 0, seed: 0 },
        maxTokens: completion,
        stopTokenIds: [],
        tenant: '',
        program: '',
        serviceTier: 'default',
        objectives: { ttftMs: 2000, itlMs: 50 },
        ageLimits: null,
        cacheSalt: '',
      },
    };
  }
}

/** The trace's own pairs, drawn with replacement; where it is missing, lognormals with its medians and spreads. */
function conversationLengths(): { lengthsOf: (uniform: number) => Lengths; said: string } {
  if (!existsSync(TRACE)) {
    console.log('SKIPPED the recorded lengths: there is no ../shared/traces/azure-llm-2023.');
    const random = seededRandom(SEED);
    const drawn = (median: number, sigma: number, most: number): number =>
      Math.max(1, Math.min(most, Math.round(median * Math.exp(sigma * random.normal()))));
    return {
      said: 'lognormals with the medians and spreads of Azure conversations',
      lengthsOf: () => ({ prompt: drawn(760, 0.985, 14_050), completion: drawn(151, 0.859, 1000) }),
    };
  }
  const pairs = readFileSync(TRACE, 'utf8')
    .trim()
    .split('\n')
    .slice(1)
    .map((line): Lengths => {
      const [, prompt = '1', completion = '1'] = line.split(',');
      return { prompt: Math.max(1, Number(prompt)), completion: Math.max(1, Number(completion)) };
    });
  return {
    said: `${pairs.length} recorded pairs of Azure conversations`,
    lengthsOf: (uniform) => pairs[Math.floor(uniform * pairs.length)] ?? { prompt: 1, completion: 1 },
  };
}
