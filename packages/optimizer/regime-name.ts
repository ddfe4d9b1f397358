/**
 * A regime's name for people, from its features: "long-context agents, 95 % cached, bursty". Called by regime-library.ts.
 * Pure: the same features have the same name; of two regimes with the same words the later one gets one more, of what
 * tells it apart most.
 */
import {
  FEATURES,
  type FeatureName,
  type FeatureValues,
  type RegimeFeatures,
  SCALES,
} from './regime-features.ts';

/** Of the middle request, in tokens; by nature the middle of a logarithm is not pulled up by a few long ones. */
interface Traits {
  readonly promptTokens: number;
  readonly longPromptTokens: number;
  readonly answerTokens: number;
  readonly cachedShare: number;
  /** Within one window. */
  readonly requestsPerSession: number;
  readonly cv2: number;
}

type Words = readonly (readonly [
  words: string | ((traits: Traits) => string),
  is: (traits: Traits) => boolean,
])[];

const SHORT_PROMPT = 150;
const LONG_PROMPT = 400;
const VERY_LONG_PROMPT = 8000;
const isAgents = (traits: Traits): boolean =>
  traits.requestsPerSession >= 2 && traits.cachedShare >= 0.4 && traits.promptTokens >= 1000;
/** The longest tenth is of another kind than the middle. */
const isMixed = ({ promptTokens, longPromptTokens }: Traits): boolean => longPromptTokens > 6 * promptTokens;

/** The first that holds. */
const kinds: Words = [
  ['agents among others', (traits) => isAgents(traits) && isMixed(traits)],
  ['long-context agents', (traits) => isAgents(traits) && traits.promptTokens >= VERY_LONG_PROMPT],
  ['agents', isAgents],
  ['very long prompts', ({ promptTokens }) => promptTokens >= VERY_LONG_PROMPT],
  ['prompts of all lengths', (traits) => traits.promptTokens >= LONG_PROMPT && isMixed(traits)],
  ['long prompts', ({ promptTokens }) => promptTokens >= LONG_PROMPT],
  ['middling prompts', ({ promptTokens }) => promptTokens >= SHORT_PROMPT],
  ['short chats', ({ answerTokens }) => answerTokens >= 16],
  ['short prompts', () => true],
];
/** All that hold. */
const additions: Words = [
  [
    'long prompts now and then',
    ({ promptTokens, longPromptTokens }) =>
      promptTokens < LONG_PROMPT && longPromptTokens > Math.max(3 * promptTokens, LONG_PROMPT / 2),
  ],
  ['short answers', ({ answerTokens }) => answerTokens < 16],
  ['long answers', ({ answerTokens }) => answerTokens > 300],
  [
    ({ cachedShare }) => `${5 * Math.round(20 * cachedShare)} % cached`,
    ({ cachedShare }) => cachedShare >= 0.25,
  ],
  ['bursty', ({ cv2 }) => cv2 > 3],
];

const moreAndLess: Readonly<Record<FeatureName, readonly [more: string, less: string]>> = {
  meanLogPrompt: ['longer prompts', 'shorter prompts'],
  p90LogPrompt: ['longer long prompts', 'shorter long prompts'],
  meanLog1pUncached: ['less cached', 'more cached'],
  meanLogOutput: ['longer answers', 'shorter answers'],
  logArrivalRate: ['busier', 'quieter'],
  logSessionRate: ['busier', 'quieter'],
  logCv2: ['burstier', 'steadier'],
  meanHitShare: ['more cached', 'less cached'],
};

export function nameRegime(features: RegimeFeatures): string {
  const traits: Traits = {
    promptTokens: Math.exp(features.meanLogPrompt ?? 0),
    longPromptTokens: Math.exp(features.p90LogPrompt ?? 0),
    answerTokens: Math.exp(features.meanLogOutput ?? 0),
    cachedShare: features.meanHitShare ?? 0,
    requestsPerSession: Math.exp((features.logArrivalRate ?? 0) - (features.logSessionRate ?? 0)),
    cv2: Math.exp(features.logCv2 ?? 0),
  };
  const holding = (words: Words): string[] =>
    words.filter(([, is]) => is(traits)).map(([word]) => (typeof word === 'string' ? word : word(traits)));
  return [...holding(kinds).slice(0, 1), ...holding(additions)].join(', ');
}

/** With one word more for what differs most from the regime that has the plain name; a number where that is taken, too. */
export function distinctName(
  plain: string,
  values: FeatureValues,
  others: readonly { readonly name: string; readonly mean: FeatureValues }[],
): string {
  const isTaken = (name: string): boolean => others.some((other) => other.name === name);
  if (!isTaken(plain)) return plain;
  const first = others.find(({ name }) => name === plain);
  const shifts = FEATURES.map((feature, index) => {
    const shift = (values[index] ?? 0) - (first?.mean[index] ?? 0);
    return {
      size: Math.abs(shift) / SCALES[feature].material,
      word: moreAndLess[feature][shift > 0 ? 0 : 1],
    };
  });
  const { word } = shifts.reduce((a, b) => (b.size > a.size ? b : a));
  const named = `${plain}, ${word}`;
  const numbered = (number: number): string => (number === 1 ? named : `${named} (${number})`);
  let number = 1;
  while (isTaken(numbered(number))) number += 1;
  return numbered(number);
}
