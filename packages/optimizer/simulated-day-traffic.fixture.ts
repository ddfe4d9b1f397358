/**
 * What comes in on a simulated day: five kinds of traffic, two of which come again. Changes are complete at once. Used by
 * simulated-day.fixture.ts.
 */
import type { Arrival } from './replay.ts';
import { seededRandom } from './seeded-random.ts';
import { MINUTE } from './simulated-day-worker.fixture.ts';

interface Kind {
  readonly name: string;
  /** Of sessions. */
  readonly perSecond: number;
  readonly turnCount: number;
  readonly pauseMs: number;
  readonly promptTokens: number;
  readonly appendTokens: number;
  readonly answerTokens: number;
  readonly objectives: { readonly ttftMs: number; readonly itlMs: number };
}

const kind = (
  name: string,
  perSecond: number,
  sizes: readonly [number, number],
  more: Partial<Kind> = {},
): Kind => ({
  name,
  perSecond,
  turnCount: 1,
  pauseMs: 0,
  promptTokens: sizes[0],
  appendTokens: 0,
  answerTokens: sizes[1],
  objectives: { ttftMs: 3000, itlMs: 60 },
  ...more,
});
const chats = kind('chats', 1, [90, 40], { turnCount: 3, pauseMs: 6000, appendTokens: 30 });
const documents = kind('documents', 1.4, [900, 10], { objectives: { ttftMs: 5000, itlMs: 150 } });
const writing = kind('writing', 1.1, [50, 150]);
const agents = kind('agents', 0.25, [1200, 25], { turnCount: 8, pauseMs: 3000, appendTokens: 120 });
const labels = kind('labels', 5, [160, 4], { objectives: { ttftMs: 3000, itlMs: 150 } });

export interface Phase {
  readonly kind: Kind;
  readonly minutes: number;
  readonly isRecurring: boolean;
}
const phase = (of: Kind, minutes: number, isRecurring = false): Phase => ({ kind: of, minutes, isRecurring });
export const WHOLE_DAY: readonly Phase[] = [
  phase(chats, 50),
  phase(documents, 50),
  phase(writing, 50),
  phase(chats, 30, true),
  phase(agents, 50),
  phase(documents, 30, true),
  phase(labels, 50),
];
/** Nothing is asked of the first minutes of a phase. */
export const graceMinutes = ({ isRecurring }: Phase): number => (isRecurring ? 5 : 20);

export function trafficOf(seed: number, phases: readonly Phase[]): { arrivals: Arrival[]; endsAt: number } {
  const random = seededRandom(seed);
  const arrivals: Arrival[] = [];
  const length = (middle: number): number =>
    Math.max(1, Math.round(middle * Math.exp(0.5 * random.normal() - 0.125)));
  const exponential = (mean: number): number => -mean * Math.log(1 - random.uniform());
  let from = 0;
  let sessionCount = 0;
  for (const { kind: of, minutes } of phases) {
    const to = from + minutes * MINUTE;
    for (let at = from + exponential(1000 / of.perSecond); at < to; at += exponential(1000 / of.perSecond)) {
      sessionCount += 1;
      let promptTokenCount = Math.min(4000, length(of.promptTokens));
      let cachedTokenCount = 0;
      let turnAt = at;
      for (let turn = 0; turn < of.turnCount && turnAt < to; turn += 1) {
        const completionTokenCount = length(of.answerTokens);
        arrivals.push({
          at: turnAt,
          promptTokenCount,
          cachedTokenCount,
          completionTokenCount,
          session: String(sessionCount),
          tenant: '',
          serviceTier: 'default',
          objectives: of.objectives,
          isStreamed: true,
          e2eMs: 20 * completionTokenCount,
        });
        cachedTokenCount = 16 * Math.floor(promptTokenCount / 16);
        promptTokenCount += completionTokenCount + length(of.appendTokens);
        turnAt += exponential(of.pauseMs) + 20 * completionTokenCount + 500;
      }
    }
    from = to;
  }
  return { arrivals: arrivals.sort((a, b) => a.at - b.at), endsAt: from };
}
