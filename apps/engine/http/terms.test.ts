/** Tiers, tenants, sessions and deadlines of requests, over a real socket. */
import { createHmac } from 'node:crypto';
import OpenAI from 'openai';
import { afterEach, describe, expect, test } from 'vitest';
import type { WorkerView } from '../fleet/fleet.ts';
import { MODEL, type Served, serve } from './served.fixture.ts';

const open: Served[] = [];
const opened = async (...parts: Parameters<typeof serve>): Promise<Served> => {
  const served = await serve(...parts);
  open.push(served);
  return served;
};
afterEach(async () => {
  for (const served of open.splice(0)) await served.close();
});

const chat = { model: MODEL, messages: [{ role: 'user' as const, content: 'Hi' }], max_tokens: 2 };
const ids = [437, 464, 261];

describe('the tier', () => {
  test.each(['priority', 'default', 'flex'])(
    '%s that is asked for is used, and said in the answer',
    async (tier) => {
      const served = await opened(() => ({ tokenIds: ids }));
      const whole = await served.post('/v1/chat/completions', { ...chat, service_tier: tier });
      expect(await whole.json()).toMatchObject({ service_tier: tier });
      const streamed = await served.post('/v1/completions', {
        model: MODEL,
        prompt: 'a',
        stream: true,
        max_tokens: 1,
        service_tier: tier,
      });
      const [chunk] = (await streamed.text()).split('\n\n');
      expect(JSON.parse((chunk ?? '').slice(6))).toMatchObject({ service_tier: tier });
      expect(served.fleet.submitted.map(({ serviceTier }) => serviceTier)).toEqual([tier, tier]);
      expect(served.rows.map(({ serviceTier }) => serviceTier)).toEqual([tier, tier]);
    },
  );

  test.each(['scale', 'fast', '', 7])('%j is refused by name', async (tier) => {
    const served = await opened(() => ({ tokenIds: ids }));
    const response = await served.post('/v1/chat/completions', { ...chat, service_tier: tier });
    expect(response.status).toBe(400);
    const { error } = (await response.json()) as { error: { param: string; message: string } };
    expect(error.param).toBe('service_tier');
    expect(error.message).toContain('"auto", "default", "flex" and "priority"');
  });

  test('is inferred where nothing is asked for or "auto" is: from headers, and from what the tenant did', async () => {
    const served = await opened(() => ({ tokenIds: ids }));
    const tierOf = async (body: object, headers: Record<string, string> = {}): Promise<string> => {
      const response = await served.post('/v1/chat/completions', { ...chat, ...body }, headers);
      return ((await response.json()) as { service_tier: string }).service_tier;
    };
    expect(await tierOf({})).toBe('default');
    expect(await tierOf({ service_tier: 'auto' }, { 'x-deadline-ms': '5000' })).toBe('priority');
    expect(await tierOf({}, { 'x-gateway-inference-objective': 'nightly-batch' })).toBe('flex');
    expect(await tierOf({}, { 'x-stainless-timeout': '900' })).toBe('flex');
    expect(await tierOf({}, { 'x-stainless-timeout': '600' })).toBe('default');
    const client = new OpenAI({ baseURL: `${served.url}/v1`, apiKey: 'any', maxRetries: 0 });
    expect((await client.chat.completions.create(chat, { timeout: 5000 })).service_tier).toBe('priority');
    expect(served.rows.map((row) => [row.serviceTierAsked, row.serviceTier, row.serviceTierReason])).toEqual([
      ['', 'default', 'nothing shows that it can wait'],
      ['auto', 'priority', 'its client waits 5 s at most'],
      ['', 'flex', "the gateway's objective says so"],
      ['', 'flex', 'not streamed, and its client waits 900 s'],
      ['', 'default', 'nothing shows that it can wait'],
      ['', 'priority', 'its client waits 5 s at most'],
    ]);
  });
});

describe('tenants', () => {
  const secret = Buffer.alloc(32, 7);
  const saltOf = (tenant: string) => createHmac('sha256', secret).update(tenant).digest('hex').slice(0, 32);
  const keys = [
    { name: 'ann', key: 'sesame-ann' },
    { name: 'bob', key: 'sesame-bob' },
  ];
  const ask = (served: Served, key: string, headers: Record<string, string> = {}) =>
    served.post('/v1/chat/completions', chat, { authorization: `Bearer ${key}`, ...headers });

  test('are named by their key; each has a salt of its own that only the server can make', async () => {
    const served = await opened(() => ({ tokenIds: ids }), { apiKeys: keys, tenantSecret: secret });
    for (const key of ['sesame-ann', 'sesame-bob']) expect((await ask(served, key)).status).toBe(200);
    expect((await ask(served, 'sesame-cid')).status).toBe(401);
    expect((await ask(served, 'ann')).status).toBe(401);
    expect(served.fleet.submitted.map(({ tenant, cacheSalt }) => [tenant, cacheSalt])).toEqual([
      ['ann', saltOf('ann')],
      ['bob', saltOf('bob')],
    ]);
    expect(served.rows.map(({ tenant, keyId }) => [tenant, keyId])).toEqual([
      ['ann', 'ann'],
      ['bob', 'bob'],
    ]);
  });

  test('are not named by a header, unless it is trusted', async () => {
    const plain = await opened(() => ({ tokenIds: ids }), { apiKeys: keys });
    await ask(plain, 'sesame-ann', { 'x-tenant-id': 'bob' });
    expect(plain.rows.map(({ tenant }) => tenant)).toEqual(['ann']);

    const behind = await opened(() => ({ tokenIds: ids }), { apiKeys: keys, isTenantHeaderTrusted: true });
    await ask(behind, 'sesame-ann', { 'x-tenant-id': 'team-7' });
    await ask(behind, 'sesame-ann', { 'x-gateway-inference-fairness-id': 'team-8' });
    await ask(behind, 'sesame-ann');
    expect(behind.rows.map(({ tenant, keyId }) => [tenant, keyId])).toEqual([
      ['team-7', 'ann'],
      ['team-8', 'ann'],
      ['ann', 'ann'],
    ]);
    const refused = await ask(behind, 'sesame-ann', { 'x-tenant-id': 'no spaces' });
    expect(refused.status).toBe(400);
    expect(await refused.json()).toMatchObject({ error: { param: 'x-tenant-id' } });
  });

  test('fill no more than their share of the queue, and leave the rest to others', async () => {
    const served = await opened(() => ({ tokenIds: ids, gapMs: 300 }), {
      apiKeys: keys,
      limits: { maxQueuedRequestCount: 4, tenantQueueShare: 0.5 },
    });
    const inside = [ask(served, 'sesame-ann'), ask(served, 'sesame-ann')];
    while (served.fleet.activeCount() < 2) await new Promise((resolve) => setTimeout(resolve, 5));
    const refused = await ask(served, 'sesame-ann');
    expect(refused.status).toBe(429);
    expect(((await refused.json()) as { error: { message: string } }).error.message).toMatch(/of yours wait/);
    expect((await ask(served, 'sesame-bob')).status).toBe(200);
    for (const response of await Promise.all(inside)) expect(response.status).toBe(200);
    expect((await ask(served, 'sesame-ann')).status).toBe(200);
  });
});

test("a full queue serves everybody in the end: OpenAI's client comes again when it is told to", async () => {
  const served = await opened(() => ({ tokenIds: ids, gapMs: 40 }), { limits: { maxQueuedRequestCount: 2 } });
  const client = new OpenAI({ baseURL: `${served.url}/v1`, apiKey: 'any', maxRetries: 20 });
  const answers = await Promise.all(
    Array.from({ length: 8 }, () => client.chat.completions.create(chat).withResponse()),
  );
  expect(answers).toHaveLength(8);
  expect(served.rows).toHaveLength(8);
});

describe('sessions and programs', () => {
  test.each<[Record<string, string>, object, string, string]>([
    [{ 'x-session-id': 's1', session_id: 's2' }, { user: 'ann' }, 's1', 's1'],
    [{ session_id: 's2' }, { prompt_cache_key: 'k' }, 's2', 's2'],
    [{ 'x-claude-code-session-id': 's3', 'x-program-id': 'p' }, {}, 's3', 'p'],
    [{}, { metadata: { session_id: 's4', program_id: 'q' }, user: 'ann' }, 's4', 'q'],
    [{}, { prompt_cache_key: 'k', user: 'ann' }, 'k', 'k'],
    [{}, {}, '', ''],
  ])('%j %j: session %j, program %j', async (headers, body, session, program) => {
    const served = await opened(() => ({ tokenIds: ids }));
    await (await served.post('/v1/chat/completions', { ...chat, ...body }, headers)).text();
    expect(served.rows.map((row) => [row.session, row.program])).toEqual([[session, program]]);
  });
});

test('a prompt that no worker of today can hold is a 400 at once, and not worth trying again', async () => {
  const served = await opened(() => ({ tokenIds: ids }));
  const envelope = { kvBlockCount: 2, kvBlockSize: 16, maxModelLenTokens: 2048 };
  served.fleet.workers = () => [{ envelope } as WorkerView];
  const ask = (length: number) =>
    served.post('/v1/completions', { model: MODEL, prompt: Array.from({ length }, () => 5), max_tokens: 1 });
  const refused = await ask(32);
  expect(refused.status).toBe(400);
  expect(refused.headers.get('x-should-retry')).toBe('false');
  expect(await refused.json()).toMatchObject({
    error: { code: 'context_length_exceeded', message: expect.stringMatching(/32 tokens.*holds 32/) },
  });
  expect((await ask(31)).status).toBe(200);
});

describe('a deadline', () => {
  test('that passes before the first token is a 504 that is not worth trying again', async () => {
    // Long enough that a busy machine has submitted it by then.
    const served = await opened(() => ({ tokenIds: ids, gapMs: 20_000 }));
    const response = await served.post('/v1/chat/completions', chat, { 'x-deadline-ms': '900' });
    expect(response.status).toBe(504);
    expect(response.headers.get('x-should-retry')).toBe('false');
    expect(await response.json()).toMatchObject({
      error: { code: 'deadline_exceeded', type: 'server_error', message: expect.stringContaining('0.9 s') },
    });
    expect(served.rows).toMatchObject([
      { finishReason: 'expired', status: 504, errorCode: 'deadline_exceeded' },
    ]);
  });

  test('that passes in the middle of a stream ends it with an error event; what came stays', async () => {
    const served = await opened(() => ({ tokenIds: ids, gapMs: 20 }), { limits: { requestTimeoutMs: 150 } });
    const response = await served.post('/v1/chat/completions', { ...chat, max_tokens: 1000, stream: true });
    expect(response.status).toBe(200);
    const events = (await response.text()).trim().split('\n\n');
    expect(events.at(-1)).toBe('data: [DONE]');
    expect(JSON.parse((events.at(-2) ?? '').slice(6))).toMatchObject({
      error: { code: 'deadline_exceeded' },
    });
    expect(events.length).toBeGreaterThan(3);
    expect(served.rows).toMatchObject([{ finishReason: 'expired', status: 200 }]);
  });

  test('is kept though no worker keeps it', async () => {
    const served = await opened(() => ({ tokenIds: ids, gapMs: 20, isDeaf: true }));
    const response = await served.post(
      '/v1/chat/completions',
      { ...chat, max_tokens: 1000 },
      { 'x-deadline-ms': '50' },
    );
    expect(response.status).toBe(504);
    expect(served.rows).toMatchObject([{ finishReason: 'expired', errorCode: 'deadline_exceeded' }]);
  });

  test("of the client is held to the server's own", async () => {
    const served = await opened(() => ({ tokenIds: ids }), { limits: { requestTimeoutMs: 60_000 } });
    for (const asked of ['1000', '90000']) {
      await (await served.post('/v1/chat/completions', chat, { 'x-deadline-ms': asked })).text();
    }
    const [short, long] = served.fleet.submitted.map(({ ageLimits }) => ageLimits?.totalMs ?? 0);
    expect(short).toBeLessThanOrEqual(1000);
    expect(long).toBeLessThanOrEqual(60_000);
    expect(long).toBeGreaterThan(50_000);
  });

  test.each(['0', '-1', 'soon', '1e99', '1.5'])('of %j is refused', async (asked) => {
    const served = await opened(() => ({ tokenIds: ids }));
    const response = await served.post('/v1/chat/completions', chat, { 'x-deadline-ms': asked });
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ error: { param: 'x-deadline-ms' } });
  });

  test('for the queue alone is a 503 that is worth trying again, and none for flex', async () => {
    const served = await opened(() => ({ tokenIds: ids, gapMs: 80 }), { limits: { maxQueueWaitMs: 30 } });
    const response = await served.post('/v1/chat/completions', chat);
    expect(response.status).toBe(503);
    expect(response.headers.get('retry-after-ms')).toBe('1000');
    expect(await response.json()).toMatchObject({ error: { code: 'queue_timeout' } });
    expect((await served.post('/v1/chat/completions', { ...chat, service_tier: 'flex' })).status).toBe(200);
  });
});
