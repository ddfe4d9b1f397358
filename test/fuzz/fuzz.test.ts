import { expect, test } from 'vitest';
import { MODEL, serve } from '../../apps/engine/http/served.fixture.ts';
import { mutatedRequests } from './mutated-bodies.ts';
import { sendMutated } from './send-mutated.ts';

test('the same seed gives the same bodies, another seed others', () => {
  const first = (seed: number) => {
    const bodies = mutatedRequests(MODEL, seed);
    return Array.from({ length: 50 }, () => {
      const { path, body } = bodies.next().value as { path: string; body: Uint8Array };
      return `${path} ${Buffer.from(body).toString('hex')}`;
    });
  };
  expect(first(7)).toEqual(first(7));
  expect(first(7)).not.toEqual(first(8));
});

test('5,000 mutated bodies get an answer and no server error, and leave no sequence behind', async () => {
  const served = await serve(() => ({ tokenIds: [437, 464, 261] }));
  try {
    const outcome = await sendMutated({ url: served.url, modelId: MODEL }, { count: 5000, seed: 20_261_126 });
    expect(outcome.faults).toEqual([]);
    expect(outcome.byStatus[200]).toBeGreaterThan(300);
    expect(outcome.byStatus[400]).toBeGreaterThan(1000);
    expect(served.logged).toEqual([]);
    await served.rowsReach(served.fleet.submitted.length);
    expect(served.fleet.activeCount()).toBe(0);
    expect((await served.post('/v1/completions', { model: MODEL, prompt: 'Hi', max_tokens: 1 })).status).toBe(
      200,
    );
  } finally {
    await served.close();
  }
}, 120_000);
