import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { agentTraffic } from './agent-traffic.ts';
import { openTrace } from './open-trace.ts';
import type { PlannedSession, PlannedTurn, TrafficSource } from './planned-traffic.ts';
import { chatMessages, promptText, promptTokenIds } from './prompt-writer.ts';
import { scaleTurn } from './scale-lengths.ts';

const folder = mkdtempSync(join(tmpdir(), 'variator-traces-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function sample(name: string, lines: readonly (object | string)[]): string {
  const path = join(folder, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(
    path,
    lines.map((line) => (typeof line === 'string' ? line : JSON.stringify(line))).join('\n'),
  );
  return path;
}

const open = (path: string, seed = 1) => openTrace({ path, format: null, seed, fromMs: 0 });

async function take(source: TrafficSource, most = 100_000): Promise<PlannedSession[]> {
  const taken: PlannedSession[] = [];
  for await (const session of source.sessions) {
    taken.push(session);
    if (taken.length === most) break;
  }
  return taken;
}

const turnOf = (session: PlannedSession | undefined): PlannedTurn => {
  const [turn] = session?.turns ?? [];
  if (turn === undefined) throw new Error('no turn');
  return turn;
};

const idsOf = (turn: PlannedTurn, seed = 1): number[] => {
  if (turn.prompt.kind !== 'parts') throw new Error('not of parts');
  return promptTokenIds(turn.prompt.parts, seed, vocabulary, new Map());
};
const vocabulary = Array.from({ length: 1000 }, (_, id) => id);

const commonPrefix = (a: readonly number[], b: readonly number[]): number => {
  const at = a.findIndex((id, index) => id !== b[index]);
  return at < 0 ? Math.min(a.length, b.length) : at;
};

const request = (timestamp: number, length: number, ids: number[], output = 10) => ({
  timestamp,
  input_length: length,
  output_length: output,
  hash_ids: ids,
});

describe('mooncake', () => {
  it('gives equal blocks for equal ids and others for others', async () => {
    const source = await open(
      sample('shared.jsonl', [request(0, 1200, [0, 1, 2]), request(5, 1300, [0, 1, 3])]),
    );
    const [a, b] = (await take(source)).map((session) => idsOf(turnOf(session)));
    expect([a?.length, b?.length]).toEqual([1200, 1300]);
    expect(commonPrefix(a ?? [], b ?? [])).toBeGreaterThanOrEqual(1024);
    expect(commonPrefix(a ?? [], b ?? [])).toBeLessThan(1030);
  });

  it('names and counts bad lines and reads on', async () => {
    const path = sample('bad.jsonl', [
      request(0, 10, [0]),
      '{"timestamp": 1, "input',
      '',
      { ...request(1, 10, [0]), input_length: -4 },
      request(1, 2000, [0]),
      request(50, 10, [7]),
      request(20, 10, [8]),
      'null',
    ]);
    const source = await open(path);
    expect((await take(source)).map(({ startsAtMs }) => startsAtMs)).toEqual([0, 50, 50]);
    expect(source.faults.list()).toEqual([
      { reason: 'a line that is no Mooncake request', count: 3, first: 'bad.jsonl:2' },
      { reason: expect.stringContaining('do not cover'), count: 1, first: 'bad.jsonl:5' },
      { reason: expect.stringContaining('a time before'), count: 1, first: 'bad.jsonl:7' },
    ]);
  });

  it('spreads what bears one time until the next', async () => {
    const rows = [0, 0, 0, 3000, 9000].map((at, index) => request(at, 10, [index]));
    const source = await open(sample('ticks.jsonl', rows));
    expect((await take(source)).map(({ startsAtMs }) => startsAtMs)).toEqual([0, 1000, 2000, 3000, 9000]);
  });

  it('skips a line that never seems to end without keeping it', async () => {
    const path = sample('long.jsonl', [
      request(0, 10, [0]),
      'x'.repeat(17 * 1024 * 1024),
      request(1, 10, [1]),
    ]);
    const source = await open(path);
    expect(await take(source)).toHaveLength(2);
    expect(source.faults.list()).toMatchObject([{ count: 1, first: 'long.jsonl:2' }]);
  });
});

it('azure: reads times to 100 ns, and names what is no row', async () => {
  const path = sample('azure.csv', [
    'TIMESTAMP,ContextTokens,GeneratedTokens',
    '2023-11-16 18:15:46.6805900,374,44',
    '2023-11-16 18:15:50.9951690,396,109',
    '2023-11-16 18:15:51,-1,3',
    'Thursday,1,1',
  ]);
  const source = await open(path);
  const sessions = await take(source);
  expect(sessions.map(({ startsAtMs }) => Math.round(startsAtMs * 10) / 10)).toEqual([0, 4314.6]);
  expect(
    sessions.map((session) => [idsOf(turnOf(session)).length, turnOf(session).outputTokenCount]),
  ).toEqual([
    [374, 44],
    [396, 109],
  ]);
  expect(source.faults.count).toBe(2);
});

it('servegen: draws at the recorded rate, in order, the same again by seed', async () => {
  sample('servegen/chunk-0-trace.csv', ['0,2,1,Gamma,1.5,0.3', '600,0,0,,0,0', 'x,y']);
  sample('servegen/chunk-1-trace.csv', ['0,1,1,Weibull,0.6,0.3']);
  sample('servegen/chunk-2-trace.csv', ['0,1,1,,0,0']);
  for (const number of [0, 1]) {
    const lengths = { input_tokens: '{100: 0.5, 200: 0.5}', output_tokens: '{7: 1.0}' };
    sample(`servegen/chunk-${number}-dataset.json`, [JSON.stringify({ 0: lengths })]);
  }
  const source = await open(join(folder, 'servegen'));
  const sessions = await take(source);
  // 3 a second for 600 s; a thousandth of such draws lies outside.
  expect(sessions.length).toBeGreaterThan(1500);
  expect(sessions.length).toBeLessThan(2100);
  const times = sessions.map(({ startsAtMs }) => startsAtMs);
  expect(times).toEqual([...times].sort((a, b) => a - b));
  expect(new Set(sessions.map((session) => idsOf(turnOf(session)).length))).toEqual(new Set([100, 200]));
  expect(source.faults.list().map(({ reason }) => reason)).toEqual([
    expect.stringContaining('without its dataset'),
    expect.stringContaining('no window'),
  ]);
  expect(await take(await open(join(folder, 'servegen')))).toEqual(sessions);
  expect(await take(await open(join(folder, 'servegen'), 2))).not.toEqual(sessions);
});

const call = (second: number, messages: object[], tools: object[] | null = null) => ({
  timestamp: `2026-04-23T17:00:${String(second).padStart(2, '0')}.000+00:00`,
  ...{ prompt_tokens: 100, completion_tokens: 25, cost: 0.1 },
  request: { messages, tools },
});

it('exgentic: turns follow one another, tools become text, answers are marked', async () => {
  const opening = [{ role: 'user', content: 'policy' }];
  const toolCall = { role: 'assistant', tool_calls: [{ function: { name: 'find' } }] };
  const after = [...opening, toolCall, { role: 'tool', content: 'found' }];
  sample('exgentic/sessions/b/agent/litellm/trace.jsonl', [
    call(10, opening, [{ name: 'find' }]),
    '{"half',
    call(15, after, [{ name: 'find' }]),
  ]);
  sample('exgentic/sessions/a/agent/litellm/trace.jsonl', [call(12, opening)]);
  const source = await open(join(folder, 'exgentic'));
  const [first, second] = await take(source);
  expect([first?.sessionId, second?.sessionId]).toEqual(['exgentic-b', 'exgentic-a']);
  expect(second?.startsAtMs).toBe(2000);
  const turn = first?.turns[1];
  // 5 s between the ends, less 700 ms and 25 tokens of 8 ms.
  expect(turn?.pauseMs).toBe(4100);
  if (turn === undefined) return;
  const recorded = chatMessages(turn.prompt, 1, 1, new Map());
  expect(recorded.map(({ role }) => role)).toEqual(['system', 'user', 'assistant', 'user']);
  expect(recorded[3]?.content).toBe('[tool result] found');
  const live = chatMessages(turn.prompt, 1, 1, new Map([[0, { text: 'as it came', tokenIds: null }]]));
  expect(live[2]?.content).toBe('as it came');
  expect(source.faults.list()).toMatchObject([{ count: 1, first: 'b/trace.jsonl:2' }]);
  expect(source.remarks().join()).toContain('2 definitions, 1 calls, 1 results');
});

it('a file that is no trace is refused with the formats there are', async () => {
  await expect(open(sample('notes.txt', ['hello']))).rejects.toThrow(/none of mooncake, azure/);
  await expect(open(join(folder, 'missing'))).rejects.toThrow(/no trace at/);
});

describe('scale', () => {
  it('keeps what prompts share, and the whole to a token', async () => {
    const path = sample('scale.jsonl', [
      request(0, 1500, [0, 1, 2]),
      request(1, 2040, [0, 1, 3, 4]),
      request(2, 700, [9, 10]),
    ]);
    for (const scale of [0.001, 0.01, 0.3, 0.77, 1]) {
      const turns = (await take(await open(path))).map((session) => scaleTurn(turnOf(session), scale));
      const [a = [], b = [], c = []] = turns.map((turn) => idsOf(turn));
      expect([a, b, c].map(({ length }) => length)).toEqual(
        [1500, 2040, 700].map((length) => Math.max(1, Math.round(length * scale))),
      );
      const shared = Math.round(1024 * scale);
      expect(commonPrefix(a, b)).toBeGreaterThanOrEqual(Math.min(shared, a.length));
      expect(commonPrefix(a, b)).toBeLessThan(shared + 5);
      expect(turns.every(({ outputTokenCount }) => outputTokenCount >= 1)).toBe(true);
    }
  });

  it('never cuts a pair of surrogates', () => {
    const messages = [{ role: 'user' as const, text: '🚀🚀🚀🚀', answerOf: null }];
    for (let scale = 0.05; scale < 1; scale += 0.05) {
      const turn = scaleTurn(
        { pauseMs: 0, outputTokenCount: 1, prompt: { kind: 'messages', messages } },
        scale,
      );
      const [written] = chatMessages(turn.prompt, 1, 1, new Map());
      expect(written?.content).not.toMatch(/\p{Surrogate}/u);
    }
  });
});

describe('agents', () => {
  it('are the same again by seed, in order, of all tiers, and shift from phase to phase', async () => {
    const options = { seed: 3, phaseMs: 60_000 };
    const sessions = await take(agentTraffic(options), 400);
    expect(await take(agentTraffic(options), 400)).toEqual(sessions);
    const times = sessions.map(({ startsAtMs }) => startsAtMs);
    expect(times).toEqual([...times].sort((a, b) => a - b));
    expect(new Set(sessions.map(({ serviceTier }) => serviceTier))).toEqual(
      new Set(['', 'priority', 'default', 'flex']),
    );
    const flexShare = (phase: number): number => {
      const here = sessions.filter(({ startsAtMs }) => Math.floor(startsAtMs / 60_000) % 3 === phase);
      return here.filter(({ serviceTier }) => serviceTier === 'flex').length / here.length;
    };
    expect(flexShare(2)).toBeGreaterThan(flexShare(0));
  });

  it('have prefixes that grow: each prompt starts with the one before, but for a summary', async () => {
    const sessions = await take(agentTraffic({ seed: 5, phaseMs: 60_000 }), 60);
    let grownCount = 0;
    let turnCount = 0;
    for (const { turns } of sessions) {
      for (const [index, turn] of turns.slice(1).entries()) {
        const before = turns[index]?.prompt;
        if (before?.kind !== 'parts' || turn.prompt.kind !== 'parts') continue;
        turnCount += 1;
        const keys = turn.prompt.parts.map(({ key }) => key);
        if (before.parts.every(({ key }, at) => keys[at] === key)) grownCount += 1;
      }
    }
    expect(grownCount / turnCount).toBeGreaterThan(0.95);
  });

  it('repeat real answers where they are given', () => {
    const parts = [
      { key: 'a', tokenCount: 3, answerOf: null },
      { key: 'b', tokenCount: 2, answerOf: 0 },
    ];
    const answers = new Map([[0, { text: ' so it was', tokenIds: [901, 902, 903] }]]);
    expect(promptTokenIds(parts, 1, vocabulary, answers).slice(3)).toEqual([901, 902, 903]);
    expect(promptText(parts, 1, 1, answers)).toMatch(/^\w+ \w+ \w+ so it was$/);
  });
});

const traces = fileURLToPath(new URL('../../../../../shared/traces', import.meta.url));
const real = [
  { path: 'mooncake/synthetic_trace.jsonl', format: 'mooncake', sessionCount: 3993 },
  { path: 'azure-llm-2023/AzureLLMInferenceTrace_conv.csv', format: 'azure', sessionCount: 19_366 },
  { path: 'azure-llm-2023/AzureLLMInferenceTrace_code.csv', format: 'azure', sessionCount: 8819 },
  { path: 'exgentic/tau2_retail_10', format: 'exgentic', sessionCount: 10 },
  { path: 'servegen/data/reason/deepseek-r1', format: 'servegen', sessionCount: 20_000 },
];
for (const { path, format, sessionCount } of real) {
  const isThere = existsSync(join(traces, path));
  if (!isThere) console.log(`SKIPPED: ${path} is not beside the repository`);
  it.skipIf(!isThere)(`${path} is read whole, without a fault`, async () => {
    const source = await open(join(traces, path));
    expect(source.format).toBe(format);
    const sessions = await take(source, sessionCount);
    expect(sessions).toHaveLength(sessionCount);
    expect(source.faults.list()).toEqual([]);
    if (format === 'exgentic') {
      expect(sessions.reduce((sum, { turns }) => sum + turns.length, 0)).toBe(102);
    }
  });
}
