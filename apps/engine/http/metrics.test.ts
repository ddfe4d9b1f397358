import { afterAll, beforeAll, expect, test } from 'vitest';
import { stepRow } from '../../../clickhouse/rows.fixture.ts';
import { createMetrics } from '../telemetry/metrics.ts';
import { MODEL, type Served, serve } from './served.fixture.ts';

let served: Served;
beforeAll(async () => {
  served = await serve((spec) => ({
    tokenIds: [437, 464, 261],
    gapMs: 2,
    ...(spec.promptTokenIds.length === 7 ? { failAt: 2 } : {}),
  }));
});
afterAll(() => served.close());

/** Samples by name and labels, in the order that they are written. */
function samples(text: string): Map<string, number> {
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    lines.map((line) => {
      const at = line.lastIndexOf(' ');
      return [line.slice(0, at), Number(line.slice(at + 1))];
    }),
  );
}
const scrape = async () => samples(await (await fetch(`${served.url}/metrics`)).text());
const own = `{model_name="${MODEL}",engine="echo"}`;
const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

test('after traffic every counter and histogram is the sum of the request rows', async () => {
  const body = { model: MODEL, max_tokens: 5 };
  const posts = [
    served.post('/v1/completions', { ...body, prompt: ['One', 'Two words', 'Three more words'] }),
    served.post('/v1/chat/completions', {
      ...body,
      stream: true,
      messages: [{ role: 'user', content: 'Hi' }],
    }),
    served.post('/v1/completions', { ...body, prompt: [5, 6, 7, 8, 9, 10, 11] }),
    served.post('/v1/completions', { ...body, prompt: [2] }),
  ];
  for (const post of posts) await (await post).text();
  expect((await served.post('/v1/completions', { ...body, prompt: '' })).status).toBe(400);
  await served.rowsReach(6);
  const { rows } = served;
  const found = await scrape();
  const value = (name: string) => found.get(`${name}${own}`);
  for (const [name, reason] of [
    ['length', 'length'],
    ['error', 'error'],
  ] as const) {
    const labels = own.replace('}', `,finished_reason="${name}"}`);
    expect(found.get(`vllm:request_success_total${labels}`)).toBe(
      rows.filter(({ finishReason }) => finishReason === reason).length,
    );
  }
  expect(value('vllm:prompt_tokens_total')).toBe(sum(rows.map((row) => row.promptTokenCount)));
  expect(value('vllm:prefix_cache_queries_total')).toBe(sum(rows.map((row) => row.promptTokenCount)));
  expect(value('vllm:prefix_cache_hits_total')).toBe(sum(rows.map((row) => row.cachedTokenCount)));
  expect(value('vllm:e2e_request_latency_seconds_count')).toBe(rows.length);
  expect(value('vllm:e2e_request_latency_seconds_sum')).toBeCloseTo(
    sum(rows.map((row) => row.e2eMs)) / 1000,
    6,
  );
  expect(value('vllm:request_queue_time_seconds_sum')).toBeCloseTo(
    sum(rows.map((row) => row.queueMs)) / 1000,
    6,
  );
  const begun = rows.filter(({ completionTokenCount }) => completionTokenCount > 0);
  expect(value('vllm:time_to_first_token_seconds_count')).toBe(begun.length);
  expect(value('vllm:time_to_first_token_seconds_sum')).toBeCloseTo(
    sum(begun.map((row) => row.ttftMs)) / 1000,
    6,
  );
  expect(value('vllm:request_generation_tokens_sum')).toBe(sum(rows.map((row) => row.completionTokenCount)));
  const gaps = found.get(`vllm:inter_token_latency_seconds_count{model_name="${MODEL}"}`);
  expect(gaps).toBe(sum(begun.map((row) => row.completionTokenCount - 1)));
  expect(found.get('variator:requests_refused_total{code="invalid_value"}')).toBe(1);
  expect(found.get('variator:requests_refused_total{code="server_error"}')).toBe(1);
});

test('what boards and pickers ask for is there, with gauges from the heartbeat', async () => {
  const worker = {
    workerId: 'worker-0',
    runningCount: 3,
    waitingCount: 2,
    kvUsedBlockCount: 25,
    pathId: 'p1',
    envelope: { kvBlockCount: 100, kvBlockSize: 16 },
  };
  const metrics = createMetrics({
    modelName: 'm',
    maxModelLenTokens: 2048,
    workers: () => [worker],
    telemetry: { pendingRowCount: () => 4, droppedRowCount: () => 1 },
  });
  metrics.stepSettled(
    stepRow({
      ...{ workerId: 'worker-0', emittedTokenCount: 6, tokenCount: 70, preemptionCount: 1 },
      ...{ draftedTokenCount: 5, acceptedDraftCount: 3 },
    }),
  );
  metrics.stepSettled(
    stepRow({ workerId: 'worker-0', kind: 'calibration', deviceMs: 500, emittedTokenCount: 9 }),
  );
  const found = samples(await metrics.text());
  const labels = '{model_name="m",engine="worker-0"}';
  expect(found.get(`vllm:num_requests_running${labels}`)).toBe(3);
  expect(found.get(`vllm:num_requests_waiting${labels}`)).toBe(2);
  expect(found.get(`vllm:kv_cache_usage_perc${labels}`)).toBe(0.25);
  expect(found.get(`vllm:generation_tokens_total${labels}`)).toBe(6);
  expect(found.get(`vllm:num_preemptions_total${labels}`)).toBe(1);
  expect(found.get(`vllm:spec_decode_num_draft_tokens_total${labels}`)).toBe(5);
  expect(found.get(`vllm:spec_decode_num_accepted_tokens_total${labels}`)).toBe(3);
  expect(found.get(`vllm:iteration_tokens_total_sum${labels}`)).toBe(70);
  expect(found.get('variator:device_seconds_total{engine="worker-0",use="calibration"}')).toBe(0.5);
  expect(found.get('variator:telemetry_rows_pending')).toBe(4);
  expect(found.get('variator:telemetry_rows_dropped_total')).toBe(1);
  expect(found.get('variator:workers')).toBe(1);
  expect([...found.keys()].some((key) => key.includes('block_size="16",num_gpu_blocks="100"'))).toBe(true);
  for (const name of ['process_resident_memory_bytes', 'nodejs_eventloop_lag_p99_seconds']) {
    expect(found.has(name)).toBe(true);
  }
});

test('scrapes need no key and carry no name of a tenant, a session or a request', async () => {
  const keyed = await serve(() => ({ tokenIds: [437] }), {
    apiKeys: [{ name: 'tenant-canary', key: 'sesame-sesame' }],
  });
  try {
    const headers = { authorization: 'Bearer sesame-sesame', 'x-session-id': 'session-canary' };
    const body = { model: MODEL, prompt: 'Hi', max_tokens: 1 };
    const answer = (await (await keyed.post('/v1/completions', body, headers)).json()) as { id: string };
    await keyed.rowsReach(1);
    const response = await fetch(`${keyed.url}/metrics`);
    expect(response.headers.get('content-type')).toContain('text/plain');
    const text = await response.text();
    expect(text).toContain('vllm:request_success_total');
    for (const secret of ['tenant-canary', 'session-canary', answer.id]) expect(text).not.toContain(secret);
  } finally {
    await keyed.close();
  }
});
