import { expect, test } from 'vitest';
import { agreementPrompts } from './agreement-prompts.ts';

test('there are 200 prompts, no two alike', () => {
  const texts = agreementPrompts().map(({ text }) => text);
  expect(texts).toHaveLength(200);
  expect(new Set(texts).size).toBe(200);
});
