import type { TelemetryClient } from '@variator/clickhouse/client';
import type { Envelope, ExecutionPath } from '@variator/kernels/execution-path';
import { expect, test } from 'vitest';
import { envelope, incumbent } from '../../../apps/engine/control/fixtures/scripted-fleet.ts';
import type { Gateway } from './gateway.ts';
import { createFitLearner } from './learn-fits.ts';

/** The linear variants that are learned beside a worker that runs `path`, of which nothing was measured yet. */
async function learnedBeside(offered: Envelope, path: ExecutionPath): Promise<string[]> {
  const published: string[] = [];
  const gateway = {
    workers: { list: { query: async () => [{ envelope: offered, path }] } },
    fits: {
      list: { query: async () => [] },
      publish: { mutate: async (fit: { kernelsId: string }) => void published.push(fit.kernelsId) },
    },
  };
  const learner = createFitLearner({
    gateway: gateway as unknown as Gateway,
    telemetry: { query: async () => [] } as unknown as TelemetryClient,
    log: () => undefined,
  });
  await learner.round(1000);
  const learned = learner.kernelsOf(offered);
  expect(published.sort()).toEqual(learned.map(({ kernelsId }) => kernelsId).sort());
  return learned.map((one) => one.path.linear).sort();
}

test('kernels that a person chose are learned beside those that a search would', async () => {
  const offered: Envelope = {
    ...envelope,
    linearVariants: ['linear.int8-generic', 'linear.int8-residual-generic', 'linear.reference'],
  };
  const searched = await learnedBeside(offered, incumbent);
  expect(searched).toContain('linear.int8-generic');
  expect(searched).not.toContain('linear.int8-residual-generic');
  const chosen = await learnedBeside(offered, { ...incumbent, linear: 'linear.int8-residual-generic' });
  expect(chosen).toEqual([...searched, 'linear.int8-residual-generic'].sort());
});
