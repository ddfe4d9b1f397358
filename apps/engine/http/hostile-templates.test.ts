/** A chat template is the model's code. What it may not do ends in a 400 at once, and nobody else notices. */

import { ModelError } from '@variator/kernels/model/model-error';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ChatTemplate } from '../generation/chat-template.ts';
import { createGeneration } from '../generation/generation.ts';
import {
  STORY_VOCABULARY_SIZE,
  storyDefaults,
  storyTokenizer,
} from '../generation/story-tokenizer.fixture.ts';
import { MODEL, type Served, serve } from './served.fixture.ts';

/** By the word that a client has to say, so that one endpoint serves them all. */
const bombs: readonly [name: string, source: string, sentence: RegExp][] = [
  [
    'a loop without end',
    '{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}{% endfor %}',
    /took longer than \d+ ms and was ended/,
  ],
  [
    'a text that doubles',
    "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    /more text than any prompt/,
  ],
  [
    'a list that doubles',
    '{% set ns = namespace(x=[1, 2]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}',
    /more text than any prompt/,
  ],
  [
    'lists of the same list',
    '{% set ns = namespace(x=[1, 2]) %}{% for i in range(30) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}',
    /more text than any prompt/,
  ],
  [
    'texts that multiply',
    "{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(99) %}{% set ns.x = ns.x.replace('a', ns.x) %}{% endfor %}{{ ns.x }}",
    /longer than any prompt/,
  ],
  ['a huge join', "{{ range(99999) | join(range(99999) | join('-')) }}", /longer than any prompt/],
  [
    'a huge indent',
    "{% set x = range(9999) | join('\\n') %}{{ x | indent(500000000) }}",
    /longer than any prompt/,
  ],
  ['a huge range', '{% for i in range(1000000000) %}{% endfor %}', /range\(\) has no more than 100000/],
  ['a range of tiny steps', '{{ range(0, 1, 0.0000001) }}', /range\(\) has no more than 100000/],
  [
    'a macro that calls itself',
    '{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}',
    /calls itself without end/,
  ],
  [
    'a namespace within itself',
    '{% set ns = namespace(x=1) %}{% set ns.x = ns %}{{ ns.x }}{{ [ns] | tojson }}',
    /namespace stands inside/,
  ],
  ['an exception of its own', "{{ raise_exception('Roles must alternate.') }}", /Roles must alternate\./],
  ['what is not there', "{{ nothing('x') }}", /not a function/],
];
const template = [
  "{% set said = messages[0]['content'] %}",
  ...bombs.map(([name, source]) => `{% if said == '${name}' %}${source}{% endif %}`),
  "{% for message in messages %}{{ message['content'] }}{% endfor %}",
].join('');

let served: Served;
beforeAll(async () => {
  served = await serve(
    ({ maxTokens }) => ({ tokenIds: Array.from({ length: maxTokens }, () => 437), gapMs: 5 }),
    { chatTemplate: template },
  );
});
afterAll(() => served.close());

const chat = (content: string) =>
  served.post('/v1/chat/completions', { model: MODEL, messages: [{ role: 'user', content }], max_tokens: 2 });

test('every such template is a 400 that says why, while a stream goes on and others are served', async () => {
  const before = process.resourceUsage().maxRSS;
  const stream = await served.post('/v1/completions', {
    model: MODEL,
    prompt: 'Once',
    max_tokens: 2000,
    stream: true,
  });
  const reader = stream.body?.getReader();
  for (const [name, , sentence] of bombs) {
    const response = await chat(name);
    const { error } = (await response.json()) as { error: { message: string; param: string } };
    expect({ name, status: response.status, param: error.param }).toEqual({
      name,
      status: 400,
      param: 'messages',
    });
    expect(error.message).toMatch(sentence);
    expect((await chat('Hello.')).status).toBe(200);
    expect((await reader?.read())?.done).toBe(false);
  }
  await reader?.cancel();
  expect(served.logged).toEqual([]);
  expect((process.resourceUsage().maxRSS - before) / 1024).toBeLessThan(384);
}, 60_000);

describe('nothing of the process can be reached', () => {
  const roots = ['messages', "''", '[]', '{}', '1', 'range', 'raise_exception', 'namespace', 'none', 'tools'];
  const steps = ['constructor', '__proto__', 'prototype', '__class__', '__globals__', 'valueOf', 'toString'];
  const paths = [
    ...roots.flatMap((root) => steps.flatMap((step) => [`${root}.${step}`, `${root}['${step}']`])),
    ...['process', 'globalThis', 'require', 'global', 'this', 'self', 'module', 'Function', 'eval', 'cycler'],
  ];
  test.each(paths)('%s', (path) => {
    const source = `{% if ${path} is defined %}reached {{ ${path} }}{% endif %}`;
    const options = { bosToken: '', eosToken: '', specials: [], maxRenderedChars: 1000 };
    let text = '';
    try {
      text = new ChatTemplate(source, options).render([{ role: 'user', content: 'x' }]).text;
    } catch {
      // Refused is as good.
    }
    expect(text).toBe('');
  });
});

test('a template that does not compile is refused at the start, by the file it came with', async () => {
  for (const chatTemplate of [
    '{% for x in %}',
    '{{ ',
    '{% endfor %}',
    `${'{{ ('.repeat(5000)}`,
    'x'.repeat(300_000),
  ]) {
    const generation = createGeneration({
      tokenizer: storyTokenizer({ chatTemplate, file: '/models/story/tokenizer.json' }),
      generationDefaults: storyDefaults,
      modelId: MODEL,
      maxModelLenTokens: 256,
      vocabularySize: STORY_VOCABULARY_SIZE,
      threadCount: 1,
    });
    const fault = await generation.ready().catch((error: unknown) => error);
    await generation.close();
    expect(fault).toBeInstanceOf(ModelError);
    expect(String(fault)).toMatch(
      /^ModelError: \/models\/story\/tokenizer\.json: .*the chat template (does not compile|has)/,
    );
  }
}, 60_000);

test('a long chat of many turns is far within what a template may make', () => {
  const source =
    "{% for m in messages %}{% if m.role == 'assistant' and '</think>' in m.content %}{% set c = m.content.split('</think>')[-1].lstrip('\\n') %}" +
    "{% else %}{% set c = m.content | replace('<x>', '') | trim %}{% endif %}{{ '<|im_start|>' ~ m.role ~ '\\n' ~ c ~ '<|im_end|>\\n' }}{% endfor %}{{ strftime_now('%d %b %Y') }}";
  const options = { bosToken: '', eosToken: '', specials: [], maxRenderedChars: 1 << 24 };
  const messages = Array.from({ length: 4000 }, (_, turn) => ({
    role: turn % 2 === 0 ? ('user' as const) : ('assistant' as const),
    content: `${'word '.repeat(200)}</think> turn ${turn}`,
  }));
  expect(new ChatTemplate(source, options).render(messages).text).toContain('turn 3999<|im_end|>');
});
