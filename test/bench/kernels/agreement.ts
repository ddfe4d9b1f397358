/**
 * `npm run bench -- kernels agreement [--peer-llama-cpp DIR]`: at how many positions a variant's likeliest token is the
 * reference path's. The reference answers 200 prompts greedily; every variant reads the same text and is asked for its next
 * token at each position of the answers (teacher forcing), and so is llama-server, one token at a time, on the same file.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Tokenizer } from '@huggingface/tokenizers';
import {
  attentionVariants,
  fastestOfEachKind,
  type LinearVariantId,
  linearVariantsFor,
  variantOf,
} from '@variator/kernels/catalogue';
import { loadModel } from '@variator/kernels/model';
import { activeMatrices } from '@variator/kernels/model/active-weights';
import { loadNative, type StepOutput } from '@variator/kernels/native';
import { StepDriver } from '../../../packages/kernels/step-driver.fixture.ts';
import { benchModel } from '../bench-model.ts';
import type { Figure } from '../figure.ts';
import { writeHuggingFaceFolder } from '../peers/hugging-face-folder.ts';
import { type LlamaCpp, llamaCpp } from '../peers/llama-cpp.ts';
import type { Precision } from '../precisions.ts';
import { agreementPrompts } from './agreement-prompts.ts';
import { shareInterval } from './share-interval.ts';

const ANSWER_TOKENS = 24;
/** Prompts whose answers the reference computes side by side. */
const AT_ONCE = 20;
const MOST_TOKENS = 160;
const THREADS = 2;
/** On the same weights, of the kinds that have a goal; int4's agreement stands beside llama.cpp's. */
const LEAST_SHARES: Readonly<Record<string, number>> = {
  int8: 0.98,
  'int8-residual': 0.98,
  bf16: 0.995,
};

/** The reference's likeliest token is a clear one where it leads the next by so much, in nats. */
const CLEAR_LEAD = 0.2;

/** A prompt and what the reference made of it. */
interface Answered {
  readonly prompt: readonly number[];
  readonly answer: readonly number[];
}
/** By token of the answer: by how much the reference prefers it to the next best, in nats. */
type Leads = readonly (readonly number[])[];

/** @param precisions of the files that llama.cpp's quantiser makes of the default model */
export async function agreement(
  folder: string | null,
  precisions: readonly Precision[],
): Promise<readonly Figure[]> {
  const { path, label } = await benchModel();
  const figures = await agreementOn(path, label, { peer: null, isWithFormats: true });
  if (!path.endsWith('.gguf')) {
    console.log('  SKIPPED: the same weights in bf16, Q8_0 and Q4_0 (the default model must be there)');
    return figures;
  }
  const scratch = mkdtempSync(join(tmpdir(), 'variator-agreement-'));
  try {
    const bf16 = join(scratch, 'bf16');
    writeHuggingFaceFolder(await loadModel(path), bf16);
    figures.push(...(await agreementOn(bf16, `${label} in bf16`, { peer: null, isWithFormats: false })));
    if (folder === null) console.log('  SKIPPED: Q8_0 and Q4_0 (they need --peer-llama-cpp DIR)');
    else {
      const peer = llamaCpp(folder);
      for (const precision of precisions) {
        const file = join(scratch, `${precision}.gguf`);
        await peer.quantise(path, file, precision);
        figures.push(...(await agreementOn(file, `${label} ${precision}`, { peer, isWithFormats: false })));
        rmSync(file);
      }
    }
  } finally {
    rmSync(scratch, { recursive: true });
  }
  return figures;
}

/** `isWithFormats`: those of the KV cache, too, which depend on no weights. */
async function agreementOn(
  path: string,
  label: string,
  { peer, isWithFormats }: { readonly peer: LlamaCpp | null; readonly isWithFormats: boolean },
): Promise<Figure[]> {
  const loaded = await loadModel(path);
  const native = loadNative();
  const tokenizer = new Tokenizer(loaded.tokenizer.tokenizerJson, loaded.tokenizer.tokenizerConfig);
  const prompts = agreementPrompts().map(({ text }) => tokenizer.encode(text).ids);
  const options = { tokensPerSequence: MOST_TOKENS, threadCount: THREADS, blockSize: 16 };
  const driver = new StepDriver(native, loaded, { ...options, sequenceCount: AT_ONCE });
  const layerDtypes = new Set(loaded.tensors.layers.map(({ o }) => o.dtype));
  const dtypes = new Set(activeMatrices(loaded.shape, loaded.tensors).map(({ dtype }) => dtype));
  const linears = linearVariantsFor(native.probeMachine(1).features, layerDtypes).filter(
    (id, _, all) => fastestOfEachKind(all).includes(id) || id === 'linear.bf16-generic',
  );
  const figures: Figure[] = [];
  try {
    const answered = await answers(driver, prompts, new Set(loaded.tokenizer.eosTokenIds));
    const leads = await referenceLeads(driver, answered);
    const judge = (name: string, tokens: readonly (readonly number[])[], least: number | null) => {
      const one = share(`${label}: ${name}`, answered, leads, tokens, least);
      console.log(`    ${one.figure} ${one.measured} (${one.interval})`);
      figures.push(one);
    };
    for (const linear of linears) {
      if (linear === 'linear.reference') continue;
      await driver.prepare(linear);
      const { kind, exactDtypes } = variantOf(linear);
      const isSameWeights = [...dtypes].every((dtype) => exactDtypes.includes(dtype));
      judge(
        isSameWeights ? linear : `${linear} (rounds the weights)`,
        await nextTokens(driver, linear, answered),
        isSameWeights ? (LEAST_SHARES[kind] ?? null) : null,
      );
    }
    for (const attention of isWithFormats ? attentionVariants : []) {
      if (attention === 'attention.reference') continue;
      await driver.attendBy(attention);
      judge(
        `linear.reference with ${attention}`,
        await nextTokens(driver, 'linear.reference', answered),
        null,
      );
    }
    if (peer !== null) judge('llama.cpp', await peerTokens(peer, path, answered), null);
  } finally {
    driver.close();
  }
  return figures;
}

/** The reference's greedy answers, up to and with the end of text. */
async function answers(
  driver: StepDriver,
  prompts: readonly number[][],
  endTokenIds: ReadonlySet<number>,
): Promise<Answered[]> {
  const settings = { linear: 'linear.reference', chunkSize: MOST_TOKENS } as const;
  const answered: Answered[] = [];
  for (let from = 0; from < prompts.length; from += AT_ONCE) {
    for (let sequence = 0; sequence < AT_ONCE; sequence += 1) driver.rewind(sequence, 0);
    const some = prompts.slice(from, from + AT_ONCE);
    const { tokens } = await driver.generate(some, ANSWER_TOKENS, settings);
    for (const [index, prompt] of some.entries()) {
      const own = tokens[index] ?? [];
      const end = own.findIndex((token) => endTokenIds.has(token));
      answered.push({ prompt, answer: end < 0 ? own : own.slice(0, end + 1) });
    }
  }
  return answered;
}

async function nextTokens(
  driver: StepDriver,
  linear: LinearVariantId,
  answered: readonly Answered[],
): Promise<number[][]> {
  const tokens: number[][] = [];
  for (const one of answered) {
    // Pairs: the token that stands there, and the likeliest.
    const { logprobTokenIds } = await scored(driver, linear, one, 1);
    tokens.push([...(logprobTokenIds ?? [])].filter((_, index) => index % 2 === 1));
  }
  return tokens;
}

async function referenceLeads(driver: StepDriver, answered: readonly Answered[]): Promise<number[][]> {
  const leads: number[][] = [];
  for (const one of answered) {
    const logprobs = (await scored(driver, 'linear.reference', one, 2)).logprobs ?? new Float32Array();
    // Threes: the token that stands there, the likeliest and the second.
    leads.push(one.answer.map((_, at) => (logprobs[3 * at + 1] ?? 0) - (logprobs[3 * at + 2] ?? 0)));
  }
  return leads;
}

/** Scores every position of an answer, all in one step: bits do not depend on chunks. */
function scored(
  driver: StepDriver,
  linear: LinearVariantId,
  { prompt, answer }: Answered,
  topCount: number,
): Promise<StepOutput> {
  driver.rewind(0, 0);
  const tokenIds = [...prompt, ...answer.slice(0, -1)];
  const scoredTokenIds = Int32Array.from(tokenIds, (_, at) =>
    at >= prompt.length - 1 && at < tokenIds.length - 1 ? (tokenIds[at + 1] ?? -1) : -1,
  );
  return driver.step([{ sequence: 0, tokenIds, isSampled: true }], {
    linear,
    scoring: { topCounts: Int32Array.of(topCount), scoredTokenIds },
  });
}

/** What llama-server would say next at every position, by as many requests; its KV cache keeps what came before. */
async function peerTokens(peer: LlamaCpp, path: string, answered: readonly Answered[]): Promise<number[][]> {
  // One thread: it gives the same tokens as more, and waits for nobody.
  const server = await peer.serve(path, 1, 1);
  try {
    const tokens: number[][] = [];
    for (const { prompt, answer } of answered) {
      const own: number[] = [];
      for (const position of answer.keys()) {
        own.push(await peer.nextToken(server.url, [...prompt, ...answer.slice(0, position)]));
      }
      tokens.push(own);
    }
    return tokens;
  } finally {
    await server.stop();
  }
}

function share(
  name: string,
  answered: readonly Answered[],
  leads: Leads,
  tokens: readonly (readonly number[])[],
  least: number | null,
): Figure {
  const positions = answered.map(({ answer }, index) => {
    const own = tokens[index] ?? [];
    if (own.length !== answer.length)
      throw new Error(`${name}: ${own.length} of ${answer.length} positions.`);
    return answer.map((token, at) => ({ isHit: own[at] === token, lead: leads[index]?.[at] ?? 0 }));
  });
  const groups = (of: typeof positions) =>
    of.map((some) => ({ hits: some.filter(({ isHit }) => isHit).length, count: some.length }));
  const { share, low, high, count } = shareInterval(groups(positions));
  const clear = shareInterval(groups(positions.map((some) => some.filter(({ lead }) => lead > CLEAR_LEAD))));
  const missed = positions.flat().flatMap(({ isHit, lead }) => (isHit ? [] : [lead]));
  const percent = (value: number): string => (100 * value).toFixed(2);
  return {
    figure: `${name}, the reference's token`,
    goal: least === null ? '' : `>= ${100 * least} %`,
    measured: `${percent(share)} %`,
    interval:
      `${percent(low)} to ${percent(high)} % of ${count} positions, ${answered.length} prompts; ` +
      `${percent(clear.share)} % of the ${clear.count} where it leads by ${CLEAR_LEAD}; ` +
      `widest lead missed ${Math.max(0, ...missed).toFixed(2)}`,
    isMet: least === null ? null : share >= least,
  };
}
