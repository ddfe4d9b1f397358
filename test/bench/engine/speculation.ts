/**
 * Speculation by lookup at batch 1: an agent that quotes what it was given, through the scheduler and the CPU device, with
 * guesses and without in turns. Both must answer alike to the token.
 */

import { Tokenizer } from '@huggingface/tokenizers';
import { type ExecutionPath, namedPaths, numericsId } from '@variator/kernels/execution-path';
import { loadModel } from '@variator/kernels/model';
import { GuessWatch, stepAllowance } from '@variator/scheduler/guess-watch';
import { Scheduler } from '@variator/scheduler/scheduler';
import type { SequenceSpec } from '@variator/scheduler/sequence';
import { cpuDevice } from '../../../apps/engine/worker/cpu-device.ts';
import { benchModel } from '../bench-model.ts';
import { type Figure, figure, pairedRatio, spread } from '../figure.ts';

const ROUNDS = 6;
const ANSWER_TOKENS = 160;
const DRAFTS = 8;
const LEAST_GAIN = 1.5;

const files = Array.from(
  { length: 12 },
  (_, index) =>
    `{"path": "src/part-${index}.ts", "lines": ${120 + 7 * index}, "changed": ${index % 3 === 0}}`,
).join('\n');
/** What agents do all day: the same list again, with the next call behind it. */
const texts: readonly (readonly [name: string, text: string])[] = [
  [
    'repetitive agent text',
    `Tool result:\n${files}\nThe same list once more, unchanged:\n${files.slice(0, 300)}`,
  ],
  ['plain prose', 'The history of the lighthouse on the northern coast begins in the year'],
];

const SPEC: SequenceSpec = {
  sequenceId: 'one',
  promptTokenIds: [],
  generatedTokenIds: [],
  sampling: { temperature: 0, topP: 1, topK: 0, seed: 0 },
  maxTokens: ANSWER_TOKENS,
  stopTokenIds: [],
  tenant: '',
  program: '',
  serviceTier: 'default',
  objectives: { ttftMs: 0, itlMs: 0 },
  ageLimits: null,
  cacheSalt: '',
};

export async function speculation(): Promise<readonly Figure[]> {
  const { path, label } = await benchModel();
  const model = await loadModel(path);
  const options = {
    threadCount: 2,
    kvMemoryBytes: 256 * 1024 ** 2,
    maxModelLenTokens: 2048,
    isa: 'all',
    packedWeightsDir: null,
  } as const;
  const device = cpuDevice(model, options);
  const tokenizer = new Tokenizer(model.tokenizer.tokenizerJson, model.tokenizer.tokenizerConfig);
  const plain = namedPaths(device.envelope).balanced;
  const guessing = { ...plain, draftTokenCount: DRAFTS };
  const figures: Figure[] = [];
  try {
    await device.prepare(plain);
    await device.keepKvFor(plain, []);
    for (const [name, text] of texts) {
      const prompt = tokenizer.encode(text).ids;
      const run = (one: ExecutionPath) => answer(one, prompt);
      await run(plain);
      const watching: number[] = [];
      const rates = { plain: [] as number[], guessing: [] as number[] };
      let right = 0;
      let verified = 0;
      for (let round = 0; round < ROUNDS; round += 1) {
        const without = await run(plain);
        const withGuesses = await run(guessing);
        if (String(without.tokenIds) !== String(withGuesses.tokenIds)) throw new Error('The answers differ.');
        rates.plain.push(without.tokensPerSecond);
        rates.guessing.push(withGuesses.tokensPerSecond);
        watching.push(watchUs(prompt, without.tokenIds));
        right += withGuesses.acceptedCount;
        verified += withGuesses.draftedCount;
      }
      const isGated = name === 'repetitive agent text';
      figures.push(
        figure(
          `${label}, ${name}: with guesses over without (${right} of ${verified} right)`,
          pairedRatio(rates.guessing, rates.plain),
          'x',
          isGated ? `>= ${LEAST_GAIN}` : '',
          isGated ? (gain) => gain >= LEAST_GAIN : null,
        ),
        figure(`${label}, ${name}: without`, spread(rates.plain), 'tok/s', '', null, 0),
        figure(`${label}, ${name}: host time of watching, a token`, spread(watching), 'us', '', null, 2),
      );
    }
  } finally {
    device.close();
  }
  return figures;

  async function answer(one: ExecutionPath, promptTokenIds: readonly number[]) {
    const { envelope } = device;
    const scheduler = new Scheduler({
      blockCount: envelope.kvBlockCount,
      blockSize: envelope.kvBlockSize,
      maxModelLenTokens: envelope.maxModelLenTokens,
      limits: one,
      numericsId: numericsId(one),
    });
    scheduler.submit({ ...SPEC, promptTokenIds }, 0);
    const tokenIds: number[] = [];
    let firstAt = 0;
    let acceptedCount = 0;
    let draftedCount = 0;
    for (let batch = scheduler.schedule(0); batch !== null; batch = scheduler.schedule(0)) {
      const result = await device.run(one, batch.entries, 'scheduled');
      const settled = scheduler.settle({ stepId: batch.stepId, ...result }, performance.now());
      if (tokenIds.length === 0 && settled.events.length > 0) firstAt = performance.now();
      tokenIds.push(...settled.events.map(({ tokenId }) => tokenId));
      acceptedCount += settled.acceptedDraftCount;
      draftedCount += settled.draftedTokenCount;
    }
    const seconds = (performance.now() - firstAt) / 1000;
    return { tokenIds, tokensPerSecond: (tokenIds.length - 1) / seconds, acceptedCount, draftedCount };
  }
}

/** Microseconds a generated token, its share of taking the prompt in among them. */
function watchUs(promptTokenIds: readonly number[], answerTokenIds: readonly number[]): number {
  const watch = GuessWatch.for({ ...SPEC, promptTokenIds }, 1);
  const tokenIds = [...promptTokenIds];
  const startedAt = performance.now();
  for (const tokenId of answerTokenIds) {
    tokenIds.push(tokenId);
    watch?.note(tokenIds, stepAllowance(10));
  }
  return (1000 * (performance.now() - startedAt)) / answerTokenIds.length;
}
