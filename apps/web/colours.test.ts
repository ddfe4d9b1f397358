import { expect, test } from 'vitest';
import { colourOfRegime } from './colours.ts';

test('a regime keeps its colour when it comes again; suspicions between take none from it', () => {
  const chats = { name: 'short chats', isConfirmed: true };
  const colour = colourOfRegime(chats);
  expect(colour).toMatch(/^var\(--series-[1-6]\)$/);
  for (let index = 0; index < 20; index += 1) {
    expect(colourOfRegime({ name: `only suspected ${index}`, isConfirmed: false })).toBe('var(--muted)');
  }
  // All six are still to be had.
  const others = ['a', 'b', 'c', 'd', 'e'].map((name) => colourOfRegime({ name, isConfirmed: true }));
  expect(new Set([colour, ...others]).size).toBe(6);
  expect(colourOfRegime(chats)).toBe(colour);
});
