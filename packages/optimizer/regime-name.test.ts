import { expect, test } from 'vitest';
import { type RegimeFeatures, valuesOf } from './regime-features.ts';
import { distinctName, nameRegime } from './regime-name.ts';

interface Shape {
  readonly prompt: number;
  readonly p90: number;
  readonly answer: number;
  readonly cached?: number;
  readonly cv2?: number;
  readonly perSession?: number;
  readonly perSecond?: number;
}

const featuresOfShape = ({
  prompt,
  p90,
  answer,
  cached = 0,
  cv2 = 1,
  perSession = 1,
  perSecond = 10,
}: Shape): RegimeFeatures => ({
  meanLogPrompt: Math.log(prompt),
  p90LogPrompt: Math.log(p90),
  meanLog1pUncached: Math.log1p(prompt * (1 - cached)),
  meanLogOutput: Math.log(answer),
  logArrivalRate: Math.log(perSecond),
  logSessionRate: Math.log(perSecond / perSession),
  logCv2: Math.log(cv2),
  meanHitShare: cached,
});

test.each<[Shape, string]>([
  [
    { prompt: 154_000, p90: 300_000, answer: 250, cached: 0.958, cv2: 5, perSession: 4 },
    'long-context agents, 95 % cached, bursty',
  ],
  [{ prompt: 2500, p90: 6000, answer: 60, cached: 0.45, perSession: 5 }, 'agents, 45 % cached'],
  [
    { prompt: 3600, p90: 25_000, answer: 220, cached: 0.63, perSession: 2.1 },
    'agents among others, 65 % cached',
  ],
  [{ prompt: 20_000, p90: 40_000, answer: 700 }, 'very long prompts, long answers'],
  [{ prompt: 3000, p90: 30_000, answer: 100 }, 'prompts of all lengths'],
  [{ prompt: 600, p90: 620, answer: 8 }, 'long prompts, short answers'],
  [{ prompt: 600, p90: 620, answer: 400, cached: 0.9 }, 'long prompts, long answers, 90 % cached'],
  [{ prompt: 200, p90: 300, answer: 100 }, 'middling prompts'],
  [{ prompt: 50, p90: 70, answer: 40 }, 'short chats'],
  [{ prompt: 60, p90: 700, answer: 40 }, 'short chats, long prompts now and then'],
  [{ prompt: 40, p90: 60, answer: 4, cv2: 9 }, 'short prompts, short answers, bursty'],
])('%o is called "%s"', (shape, name) => {
  expect(nameRegime(featuresOfShape(shape))).toBe(name);
});

const chats: Shape = { prompt: 50, p90: 70, answer: 40 };
test.each<[Shape, string]>([
  [{ ...chats, answer: 120 }, 'short chats, longer answers'],
  [{ ...chats, answer: 20 }, 'short chats, shorter answers'],
  [{ ...chats, prompt: 100, p90: 120 }, 'short chats, longer prompts'],
  [{ ...chats, perSecond: 40 }, 'short chats, busier'],
  [{ ...chats, perSecond: 3, answer: 41 }, 'short chats, quieter'],
  [{ ...chats, cached: 0.24 }, 'short chats, more cached'],
  [{ ...chats, cv2: 0.1 }, 'short chats, steadier'],
])('%o beside plain short chats is called "%s", and a second one like it gets a number', (shape, name) => {
  const known = { name: 'short chats', mean: valuesOf(featuresOfShape(chats)) };
  const values = valuesOf(featuresOfShape(shape));
  expect(nameRegime(featuresOfShape(shape))).toBe('short chats');
  expect(distinctName('short chats', values, [])).toBe('short chats');
  expect(distinctName('short chats', values, [known])).toBe(name);
  const taken = [known, { name, mean: values }];
  expect(distinctName('short chats', values, taken)).toBe(`${name} (2)`);
  expect(distinctName('short chats', values, [...taken, { name: `${name} (2)`, mean: values }])).toBe(
    `${name} (3)`,
  );
});
