import type { ExecutionPath } from '@variator/kernels/execution-path';
import { expect, test } from 'vitest';
import { type Replay, replay } from './replay.ts';
import { mostSustained, predictTtftMs, type RequestShape, steadyState } from './request-times.ts';
import { testEnvelope, testFit, testPath } from './test-world.ts';

// The replay through the real scheduler is the judge.
function replayed(shape: RequestShape, count: number, path: Partial<ExecutionPath>): Replay {
  return replay({
    arrivals: Array.from({ length: count }, (_, index) => ({
      at: 1000,
      promptTokenCount: shape.promptTokenCount,
      cachedTokenCount: shape.cachedTokenCount,
      completionTokenCount: shape.completionTokenCount,
      session: `session-${index}`,
      tenant: '',
      serviceTier: 'default',
      objectives: { ttftMs: 2000, itlMs: 100 },
      isStreamed: true,
      e2eMs: 90_000,
    })),
    path: { ...testPath, ...path },
    fit: testFit,
    envelope: testEnvelope,
    deviceUsdPerHour: 0.08,
    seed: 1,
    drainMs: 1e7,
  });
}

const shapes: readonly RequestShape[] = [
  { promptTokenCount: 60, cachedTokenCount: 0, completionTokenCount: 80 },
  { promptTokenCount: 300, cachedTokenCount: 0, completionTokenCount: 40 },
  { promptTokenCount: 400, cachedTokenCount: 0, completionTokenCount: 8 },
];
const idle = { decodingCount: 0, meanContextTokens: 0, queuedPrefillTokens: 0 };

test.each(shapes)(
  'the first token of a request alone, in one chunk or many, is where the replay has it: %o',
  (shape) => {
    for (const tokenBudget of [32, 128, 512]) {
      const [request] = replayed(shape, 1, { tokenBudget }).requests;
      expect(predictTtftMs(testFit, tokenBudget, idle, shape)).toBeCloseTo(request?.ttftMs ?? 0, 6);
    }
  },
);

test('it comes later behind others, and at once where all but the last token is cached', () => {
  const shape = { promptTokenCount: 300, cachedTokenCount: 0, completionTokenCount: 40 };
  const alone = predictTtftMs(testFit, 128, idle, shape);
  expect(predictTtftMs(testFit, 128, { ...idle, queuedPrefillTokens: 200 }, shape)).toBeGreaterThan(alone);
  expect(
    predictTtftMs(testFit, 128, { ...idle, decodingCount: 16, meanContextTokens: 300 }, shape),
  ).toBeGreaterThan(alone);
  const cached = { ...shape, cachedTokenCount: 300 };
  expect(predictTtftMs(testFit, 128, idle, cached)).toBeCloseTo(5 + 0.1 + 0.05 + 0.0004 * 300.5, 6);
});

test.each(shapes)('what a path sustains is within 15 % of the replay of a full queue: %o', (shape) => {
  for (const path of [
    { tokenBudget: 64, maxRunningCount: 8 },
    { tokenBudget: 512, maxRunningCount: 32 },
  ]) {
    const seen = replayed(shape, 400, path).outcome;
    const limits = { ...path, kvTokenCount: testEnvelope.kvBlockCount * testEnvelope.kvBlockSize };
    const said = mostSustained(testFit, limits, shape);
    expect(said.tokensPerSecond / seen.tokensPerSecond).toBeGreaterThan(0.85);
    expect(said.tokensPerSecond / seen.tokensPerSecond).toBeLessThan(1.15);
  }
});

test('more running requests give more tokens a second and slower ones', () => {
  const limits = { tokenBudget: 256, maxRunningCount: 32, kvTokenCount: 16_384 };
  const shape = { promptTokenCount: 60, cachedTokenCount: 0, completionTokenCount: 80 };
  const states = [1, 2, 4, 8, 16].map((count) => steadyState(testFit, limits, shape, count));
  states.slice(1).forEach((state, index) => {
    expect(state.tokensPerSecond).toBeGreaterThan(states[index]?.tokensPerSecond ?? 0);
    expect(state.tpotMs).toBeGreaterThan(states[index]?.tpotMs ?? 0);
  });
});
