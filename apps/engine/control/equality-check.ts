/**
 * The equality check of a rollout's warming: built-in prompts through the old and the new path on the live worker, beside
 * its traffic. Called by rollout-driver.ts. Equal tokens where the paths share numericsId; otherwise the stated agreement.
 */
import { type Envelope, type ExecutionPath, numericsId } from '@variator/kernels/execution-path';
import type { Fleet } from '../fleet/fleet.ts';
import type { CheckPrompt } from '../fleet/link-frames.ts';

const PROMPTS = [
  'Once upon a time there was a little girl who',
  'The capital of France is',
  'List three things to pack for a week in the mountains:\n1.',
  'def mean(values):\n    """Returns the arithmetic mean."""\n',
  'Dear Sir or Madam,\n\nI am writing to',
  'Q: Why does ice float on water?\nA:',
  'One, two, three, four, five, six, seven, eight, nine, ten, eleven,',
  'The old man looked at the sea for a long time, and then he said to the boy:',
] as const;
const TOKENS_EACH = 24;
const SEEDED_TEMPERATURE = 0.8;

/** Between paths of other numerics: so many first tokens of each greedy prompt are compared, and so many must agree. */
const COMPARED_TOKENS = 8;
export const LEAST_AGREEMENT = 0.8;

export interface CheckQuestion {
  readonly fleet: Pick<Fleet, 'check'>;
  readonly encode: (text: string) => Promise<readonly number[]>;
  readonly workerId: string;
  readonly envelope: Envelope;
  readonly from: ExecutionPath;
  readonly to: ExecutionPath;
  readonly seed: number;
}

/** The summary is for people; with `isEqual` false it says what differed. */
export interface CheckAnswer {
  readonly isEqual: boolean;
  readonly summary: string;
}

/** @throws FleetError where the worker is lost */
export async function checkEquality(question: CheckQuestion): Promise<CheckAnswer> {
  const { fleet, workerId, from, to } = question;
  const prompts = await checkPrompts(question);
  const wanted = await fleet.check(workerId, from, prompts);
  if (numericsId(from) === numericsId(to)) {
    const got = await fleet.check(workerId, to, prompts);
    return compareTokens(prompts, wanted, got);
  }
  // Each position is asked given the old path's tokens before it: after one close choice that falls the other way, two
  // texts go different ways for ever, which says nothing more about the numerics.
  const forced: CheckPrompt[] = [];
  const expected: number[] = [];
  for (const [index, prompt] of prompts.entries()) {
    if (prompt.temperature > 0) continue;
    const output = wanted[index] ?? [];
    for (const [position, token] of output.slice(0, COMPARED_TOKENS).entries()) {
      forced.push({
        ...prompt,
        promptTokenIds: [...prompt.promptTokenIds, ...output.slice(0, position)],
        maxTokens: 1,
      });
      expected.push(token);
    }
  }
  if (forced.length === 0) return { isEqual: false, summary: 'The old path gave no tokens to compare with.' };
  const got = await fleet.check(workerId, to, forced);
  return compareAgreement(
    expected,
    got.map((output) => output[0] ?? -1),
  );
}

/** Half greedy, half seeded, cut to what fits the model. */
async function checkPrompts({ encode, envelope, seed }: CheckQuestion): Promise<CheckPrompt[]> {
  const room = Math.max(1, envelope.maxModelLenTokens - TOKENS_EACH);
  return Promise.all(
    PROMPTS.map(async (text, index) => ({
      promptTokenIds: (await encode(text)).slice(0, room),
      maxTokens: Math.max(1, Math.min(TOKENS_EACH, envelope.maxModelLenTokens - room)),
      temperature: index % 2 === 0 ? 0 : SEEDED_TEMPERATURE,
      seed: seed + index,
    })),
  );
}

export function compareTokens(
  prompts: readonly CheckPrompt[],
  wanted: readonly (readonly number[])[],
  got: readonly (readonly number[])[],
): CheckAnswer {
  for (const [index, prompt] of prompts.entries()) {
    const kind = prompt.temperature > 0 ? 'seeded' : 'greedy';
    const [before = [], after = []] = [wanted[index], got[index]];
    if (before.length === 0) {
      return { isEqual: false, summary: `The old path gave no tokens for prompt ${index + 1}.` };
    }
    const length = Math.max(before.length, after.length);
    for (let position = 0; position < length; position += 1) {
      if (before[position] === after[position]) continue;
      const summary = `Tokens differ where they must be equal: prompt ${index + 1} (${kind}), token ${position + 1} of ${length}.`;
      return { isEqual: false, summary };
    }
  }
  const greedyCount = prompts.filter(({ temperature }) => temperature === 0).length;
  const tokenCount = wanted.reduce((sum, output) => sum + output.length, 0);
  return {
    isEqual: true,
    summary: `Equal tokens: ${tokenCount} of ${tokenCount} in ${prompts.length} prompts (${greedyCount} greedy, ${prompts.length - greedyCount} seeded).`,
  };
}

export function compareAgreement(expected: readonly number[], got: readonly number[]): CheckAnswer {
  const equalCount = expected.filter((token, index) => token === got[index]).length;
  const share = equalCount / expected.length;
  return {
    isEqual: share >= LEAST_AGREEMENT,
    summary: `The paths round differently, so tokens may differ: ${equalCount} of ${expected.length} greedy tokens agree given the same text (${percent(share)}; at least ${percent(LEAST_AGREEMENT)} needed).`,
  };
}

function percent(share: number): string {
  return `${Math.floor(share * 100)} %`;
}
