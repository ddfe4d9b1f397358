/**
 * Request bodies that were right once: a seeded walk of edits over good ones, in their JSON and in their bytes. Used by
 * `npm run fuzz` and by its test; the same seed gives the same bodies.
 */
import { generator } from '../../apps/engine/cli/workload.ts';
import { damaged, edited, pick } from './mutations.ts';

export interface MutatedRequest {
  readonly path: string;
  readonly body: Uint8Array;
}

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

/** @param model the served name, so that most bodies come past the first check */
export function* mutatedRequests(model: string, seed: number): Generator<MutatedRequest> {
  const random = generator(seed);
  const originals = goodOnes(model);
  for (;;) {
    const { path, body } = pick(originals, random);
    let value: unknown = structuredClone(body);
    const editCount = Math.floor(random() * 4);
    for (let edit = 0; edit < editCount; edit += 1) value = edited(value, random, oddKeys, 'model');
    const bytes = new TextEncoder().encode(JSON.stringify(value));
    // Half of all bodies are valid JSON.
    yield { path, body: random() < 0.5 ? bytes : damaged(bytes, random) };
  }
}
