/** Resampling keeps sessions whole and the load level; the twin's noise leaves the mean step as it is. */
import { describe, expect, test } from 'vitest';
import { closedLoopLinks } from './closed-loop.ts';
import { type Arrival, replay } from './replay.ts';
import { resampled } from './replay-draws.ts';
import { testEnvelope, testFit, testPath } from './test-world.ts';

const arrival = (at: number, session: string, change: Partial<Arrival> = {}): Arrival => ({
  at,
  promptTokenCount: 20,
  cachedTokenCount: 0,
  completionTokenCount: 5,
  session,
  tenant: 't',
  serviceTier: 'default',
  objectives: { ttftMs: 0, itlMs: 0 },
  isStreamed: true,
  e2eMs: 100,
  ...change,
});

/** Twenty sessions of three growing turns each, a second apart, a new one every three seconds. */
const sessions = Array.from({ length: 20 }, (_, session) =>
  [0, 1, 2].map((turn) =>
    arrival(3000 * session + 1000 * turn, `s${session}`, {
      promptTokenCount: 100 + session + 40 * turn,
      cachedTokenCount: 32 * turn,
    }),
  ),
)
  .flat()
  .sort((a, b) => a.at - b.at);

describe('resampled sessions', () => {
  test('come whole: each turn a second after the one before, with its own prompts, in a session of its own', () => {
    for (let seed = 1; seed <= 20; seed += 1) {
      const drawn = resampled(sessions, seed);
      expect(drawn).toHaveLength(sessions.length);
      const bySession = new Map(
        drawn.map(({ session }) => [session, drawn.filter((one) => one.session === session)]),
      );
      const turnsSeen = [...bySession.values()].map((turns) => {
        const first = turns[0]?.promptTokenCount ?? 0;
        for (const [index, turn] of turns.entries()) {
          expect(turn.promptTokenCount).toBe(first + 40 * index);
          expect(turn.at).toBeCloseTo((turns[0]?.at ?? 0) + 1000 * index, 6);
        }
        return turns.length;
      });
      // Only those that the end of the window cuts are in two parts.
      expect(turnsSeen.filter((count) => count !== 3).length).toBeLessThanOrEqual(2);
      const links = closedLoopLinks(drawn);
      expect(links.filter((link) => link !== null).length).toBe(drawn.length - bySession.size);
    }
  });

  test('stay in the window, in order, and differ from draw to draw', () => {
    const [first, last] = [sessions[0]?.at ?? 0, sessions.at(-1)?.at ?? 0];
    const draws = [1, 2].map((seed) => resampled(sessions, seed));
    for (const drawn of draws) {
      expect(drawn.map(({ at }) => at)).toEqual(drawn.map(({ at }) => at).sort((a, b) => a - b));
      expect(drawn[0]?.at).toBeGreaterThanOrEqual(first);
      expect(drawn.at(-1)?.at).toBeLessThan(last + 2000);
    }
    expect(draws[0]).not.toEqual(draws[1]);
    expect(resampled(sessions, 1)).toEqual(draws[0]);
  });

  test('requests of none, and of a name that many share at once, are drawn one by one at the window’s times', () => {
    for (const name of ['', 'app']) {
      const single = Array.from({ length: 50 }, (_, index) =>
        arrival(40 * index, name, { promptTokenCount: 1 + index }),
      );
      const drawn = resampled(single, 3);
      expect(drawn.map(({ at }) => at)).toEqual(single.map(({ at }) => at));
      expect(drawn.every(({ session }) => session === name)).toBe(true);
      expect(new Set(drawn.map(({ promptTokenCount }) => promptTokenCount)).size).toBeLessThan(45);
    }
  });

  test('of nothing are nothing, and of one request that one', () => {
    expect(resampled([], 1)).toEqual([]);
    expect(resampled([arrival(7, 'a')], 1)).toMatchObject([{ at: 7 }]);
  });
});

test('noise scatters steps and leaves their mean', () => {
  const arrivals = Array.from({ length: 200 }, (_, index) =>
    arrival(60_000 * index, '', { completionTokenCount: 50 }),
  );
  const run = (noise: number) =>
    replay({
      ...{ arrivals, path: testPath, fit: testFit, envelope: testEnvelope },
      ...{ deviceUsdPerHour: 1, seed: 1, noise },
    }).deviceMs;
  // 10,000 steps of each its own factor; a median of 1 would be 4.6 % above.
  expect(run(0.3) / run(0)).toBeCloseTo(1, 1.7);
});
