/**
 * Request bodies that were right once: a seeded walk of edits over good ones, in their JSON and in their bytes. Used by
 * `npm run fuzz` and by its test; the same seed gives the same bodies.
 */
import { generator } from '../../apps/engine/cli/workload.ts';

export interface MutatedRequest {
  readonly path: string;
  readonly body: Uint8Array;
}

type Random = () => number;

const user = { role: 'user', content: 'Tell me about a dog.' };
const goodOnes = (model: string): readonly { readonly path: string; readonly body: object }[] => [
  { path: '/v1/chat/completions', body: { model, messages: [user], max_tokens: 2, temperature: 0, seed: 1 } },
  {
    path: '/v1/chat/completions',
    body: {
      model,
      messages: [{ role: 'system', content: [{ type: 'text', text: 'Be kind.' }] }, user],
      max_tokens: 2,
    },
  },
  {
    path: '/v1/chat/completions',
    body: {
      model,
      messages: [user],
      max_tokens: 2,
      stream: true,
      stream_options: { include_usage: true },
      n: 1,
    },
  },
  {
    path: '/v1/completions',
    body: { model, prompt: 'Once', max_tokens: 2, top_p: 0.9, top_k: 5, stop: ['x'] },
  },
  { path: '/v1/completions', body: { model, prompt: [5, 6, 7], max_tokens: 1, logit_bias: {}, user: 'ann' } },
  { path: '/v1/completions', body: { model, prompt: ['a', 'b'], max_tokens: 1, metadata: { a: 'b' } } },
  { path: '/tokenize', body: { model, prompt: 'Once upon a time', return_token_strs: true } },
  { path: '/detokenize', body: { model, tokens: [5, 6, 7] } },
];

const oddValues: readonly unknown[] = [
  null,
  true,
  false,
  0,
  -0,
  -1,
  1,
  2,
  1e21,
  -1e308,
  5e-324,
  2 ** 31,
  2 ** 53,
  2 ** 53 + 2,
  0.1,
  '',
  ' ',
  '\0',
  '\ud800',
  'NaN',
  'x'.repeat(5000),
  '<|im_start|>',
  '<|endoftext|>',
  '👩‍👩‍👧',
  '\u202e',
  '{{ 7 * 7 }}',
  '../../etc/passwd',
  [],
  [[]],
  {},
  { a: { b: { c: {} } } },
  [null],
  [1, 'a'],
  Array.from({ length: 200 }, () => 1),
  { __proto__: null, constructor: 1 },
];
const oddKeys: readonly string[] = [
  'n',
  'best_of',
  'logprobs',
  'top_logprobs',
  'prompt_logprobs',
  'logit_bias',
  'stop',
  'stream',
  'tools',
  'response_format',
  'chat_template',
  'constructor',
  'toString',
  'hasOwnProperty',
  '',
  ' ',
  'messages',
  'prompt',
  'min_tokens',
  'echo',
  'max_tokens',
];
const oddTexts: readonly string[] = [
  '1e999',
  '-1e999',
  'NaN',
  'Infinity',
  '-',
  '01',
  '1.',
  '"\\u',
  '"\\ud800"',
  '{"__proto__":{}}',
  '[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[',
  '"a":1,"a":2',
  '\u0000',
  '/*',
  '//',
  ',',
  ':',
  '}',
  '{',
  ']',
  '"',
];

/** @param model the served name, so that most bodies come past the first check */
export function* mutatedRequests(model: string, seed: number): Generator<MutatedRequest> {
  const random = generator(seed);
  const originals = goodOnes(model);
  for (;;) {
    const { path, body } = pick(originals, random);
    let value: unknown = structuredClone(body);
    const editCount = Math.floor(random() * 4);
    for (let edit = 0; edit < editCount; edit += 1) value = edited(value, random);
    yield { path, body: damaged(new TextEncoder().encode(JSON.stringify(value)), random) };
  }
}

const pick = <T>(list: readonly T[], random: Random): T => list[Math.floor(random() * list.length)] as T;

/** One edit somewhere in the value. */
function edited(value: unknown, random: Random): unknown {
  const entries = typeof value === 'object' && value !== null ? Object.entries(value) : [];
  if (entries.length === 0 || random() < 0.1) return pick(oddValues, random);
  const [key, inner] = pick(entries, random);
  const kind = random();
  const copy: Record<string, unknown> | unknown[] = Array.isArray(value)
    ? [...value]
    : { ...(value as object) };
  const slots = copy as Record<string, unknown>;
  // The model's name stays, or all that is behind it is never reached.
  if (key === 'model' && kind < 0.9) return value;
  if (kind < 0.35) slots[key] = edited(inner, random);
  else if (kind < 0.65) slots[key] = pick(oddValues, random);
  else if (kind < 0.75) delete slots[key];
  else if (Array.isArray(copy)) copy.push(inner, pick(oddValues, random));
  else slots[pick(oddKeys, random)] = random() < 0.5 ? inner : pick(oddValues, random);
  return copy;
}

/** Half of all bodies are valid JSON; in the others bytes are cut, doubled, flipped or put in. */
function damaged(bytes: Uint8Array, random: Random): Uint8Array {
  if (random() < 0.5) return bytes;
  const at = Math.floor(random() * bytes.length);
  const until = Math.min(bytes.length, at + Math.floor(random() * 12));
  const head = bytes.subarray(0, at);
  switch (Math.floor(random() * 5)) {
    case 0:
      return head;
    case 1:
      return joined(head, bytes.subarray(until));
    case 2:
      return joined(bytes.subarray(0, until), bytes.subarray(at));
    case 3:
      return joined(head, new TextEncoder().encode(pick(oddTexts, random)), bytes.subarray(until));
    default: {
      const flipped = Uint8Array.from(bytes);
      flipped[at] = (flipped[at] ?? 0) ^ (1 << Math.floor(random() * 8));
      return flipped;
    }
  }
}

const joined = (...parts: readonly Uint8Array[]): Uint8Array => Uint8Array.from(Buffer.concat(parts));
