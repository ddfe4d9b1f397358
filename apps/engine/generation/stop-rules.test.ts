import { expect, test } from 'vitest';
import { StopRules } from './stop-rules.ts';

function run(stops: readonly string[], pushes: readonly string[]): { text: string; isStopped: boolean } {
  const rules = new StopRules(stops);
  let text = '';
  let isStopped = false;
  for (const push of pushes) {
    const step = rules.push(push);
    text += step.text;
    isStopped = step.isStopped;
  }
  return { text: text + rules.end(), isStopped };
}

test.each([
  ['nothing to stop at', [], 'hello', 'hello', false],
  ['a stop string in the middle', ['lo'], 'hello world', 'hel', true],
  ['a stop string that never completes', ['lox'], 'hello', 'hello', false],
  ['text that ends with the start of a stop string', ['###'], 'done ##', 'done ##', false],
  ['the stop string that is complete first wins', ['abcd', 'bc'], 'xabcd', 'xa', true],
  ['of two complete at once the longer one is cut', ['abc', 'bc'], 'xabc', 'x', true],
  ['a stop string that overlaps itself', ['aab'], 'aaab', 'a', true],
  ['a stop string across a newline', ['\n\nUser:'], 'hi\n\n\nUser: x', 'hi\n', true],
  ['a stop string at the very start', ['he'], 'hello', '', true],
])('%s', (_name, stops, text, expected, isStopped) => {
  expect(run(stops, [text])).toEqual({ text: expected, isStopped });
  expect(run(stops, Array.from(text))).toEqual({ text: expected, isStopped });
});

test('the result does not depend on how the text is split', () => {
  let state = 12345;
  const draw = (below: number): number => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % below;
  };
  for (let round = 0; round < 2000; round += 1) {
    const word = (length: number): string => Array.from({ length }, () => 'abc'[draw(3)]).join('');
    const text = word(1 + draw(30));
    const stops = Array.from({ length: draw(4) }, () => word(1 + draw(5)));
    const pushes: string[] = [];
    for (let at = 0; at < text.length; ) {
      const length = 1 + draw(6);
      pushes.push(text.slice(at, at + length));
      at += length;
    }
    expect(run(stops, pushes), `${text} at ${stops.join()}`).toEqual(run(stops, Array.from(text)));
  }
});

test('text that could begin a stop string is held back, and no more than that', () => {
  const rules = new StopRules(['<end>']);
  expect(rules.push('a <en').text).toBe('a ');
  expect(rules.push('try').text).toBe('<entry');
});
