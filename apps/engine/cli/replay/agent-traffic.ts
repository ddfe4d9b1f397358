/**
 * A seeded generator of agents' traffic, endless: programs that share a system prompt, sessions whose prefix grows turn by
 * turn, tool pauses, bursts of sub-agents, tiers side by side, and a mix that shifts from phase to phase. Its medians are
 * those measured by TraceLab (arXiv 2606.30560): appends of some 750 tokens, tools that mostly answer within a second.
 */
import { generator } from '../workload.ts';
import {
  type AskedTier,
  type PlannedSession,
  type PlannedTurn,
  type PromptPart,
  TraceFaults,
  type TrafficSource,
} from './planned-traffic.ts';
import { drawExponential, drawLogNormal, type Random } from './random-draws.ts';

interface ProgramKind {
  readonly name: string;
  readonly serviceTier: AskedTier;
  /** System prompt and tool definitions, the same for all of its sessions. */
  readonly systemTokens: number;
  readonly taskTokens: number;
  readonly appendTokens: number;
  readonly outputTokens: number;
  readonly turnCount: number;
  readonly pause: 'tool' | 'person';
  /** Sessions that start with it, from the same task. */
  readonly subAgentCount: number;
}

const kinds = {
  chat: {
    ...{ name: 'chat', serviceTier: 'priority', systemTokens: 600, taskTokens: 120, appendTokens: 60 },
    ...{ outputTokens: 220, turnCount: 5, pause: 'person', subAgentCount: 0 },
  },
  coding: {
    ...{ name: 'coding', serviceTier: 'default', systemTokens: 12_000, taskTokens: 900, appendTokens: 750 },
    ...{ outputTokens: 240, turnCount: 18, pause: 'tool', subAgentCount: 0 },
  },
  research: {
    ...{ name: 'research', serviceTier: '', systemTokens: 6000, taskTokens: 1500, appendTokens: 1200 },
    ...{ outputTokens: 300, turnCount: 8, pause: 'tool', subAgentCount: 5 },
  },
  review: {
    ...{ name: 'review', serviceTier: 'flex', systemTokens: 4000, taskTokens: 6000, appendTokens: 400 },
    ...{ outputTokens: 500, turnCount: 3, pause: 'tool', subAgentCount: 0 },
  },
} as const satisfies Record<string, ProgramKind>;

/** What is asked for in turn: people beside agents; sub-agents in bursts; background work with few who wait. */
const phases: readonly { readonly perMinute: number; readonly mix: readonly (keyof typeof kinds)[] }[] = [
  { perMinute: 40, mix: ['chat', 'chat', 'coding', 'coding', 'research'] },
  { perMinute: 24, mix: ['research', 'research', 'coding', 'chat'] },
  { perMinute: 30, mix: ['review', 'review', 'review', 'coding'] },
];

const MOST_TURNS = 120;
const MOST_PROMPT_TOKENS = 120_000;
const SUMMARY_TOKENS = 1500;

export interface AgentTrafficOptions {
  readonly seed: number;
  readonly phaseMs: number;
}

export function agentTraffic(options: AgentTrafficOptions): TrafficSource {
  return {
    faults: new TraceFaults(),
    sessions: sessions(options),
    remarks: () => [
      `Agents drawn with seed ${options.seed}; the mix shifts every ${options.phaseMs / 1000} s (${Object.keys(kinds).join(', ')}).`,
    ],
    readShare: () => null,
  };
}

async function* sessions({ seed, phaseMs }: AgentTrafficOptions): AsyncGenerator<PlannedSession> {
  const random = generator(seed);
  let atMs = 0;
  /** Sub-agents that start a little after the session they belong to. */
  const coming: PlannedSession[] = [];
  for (let count = 1; ; count += 1) {
    const phase = phases[Math.floor(atMs / phaseMs) % phases.length];
    if (phase === undefined) return;
    // Half of the arrivals come close upon the one before.
    const isBurst = random() < 0.5;
    atMs += (isBurst ? 0.1 : 1.9) * drawExponential(random) * (60_000 / phase.perMinute);
    const kind: ProgramKind = kinds[phase.mix[Math.floor(random() * phase.mix.length)] ?? 'chat'];
    coming.push(...program(kind, `${kind.name}-${count}`, atMs, random));
    coming.sort((a, b) => a.startsAtMs - b.startsAtMs);
    // Nothing that is still to be drawn starts before this one.
    while (coming[0] !== undefined && coming[0].startsAtMs <= atMs) yield coming.shift() as PlannedSession;
  }
}

/** The session that leads, and its sub-agents in a burst. */
function program(kind: ProgramKind, programId: string, atMs: number, random: Random): PlannedSession[] {
  const base = { programId, serviceTier: kind.serviceTier };
  const task: PromptPart = part(`${programId}/task`, drawLogNormal(kind.taskTokens, 0.8, random));
  const system: PromptPart = part(`system/${kind.name}`, kind.systemTokens);
  const lead = { ...base, sessionId: programId, startsAtMs: atMs };
  const subs = Array.from({ length: kind.subAgentCount }, (_, index) => ({
    ...base,
    sessionId: `${programId}-sub${index + 1}`,
    startsAtMs: atMs + 200 + 800 * random(),
  }));
  return [lead, ...subs].map((each) => ({
    ...each,
    turns: turns(kind, each.sessionId, [system, task], random),
  }));
}

function turns(kind: ProgramKind, id: string, opening: readonly PromptPart[], random: Random): PlannedTurn[] {
  const count = Math.min(MOST_TURNS, 1 + Math.floor(kind.turnCount * drawExponential(random)));
  const planned: PlannedTurn[] = [];
  let parts: readonly PromptPart[] = [...opening, part(`${id}/0`, 60)];
  for (let index = 0; index < count; index += 1) {
    const outputTokenCount = Math.round(
      Math.min(4000, Math.max(8, drawLogNormal(kind.outputTokens, 1, random))),
    );
    planned.push({
      pauseMs: index === 0 ? 0 : pauseMs(kind.pause, random),
      prompt: { kind: 'parts', parts },
      outputTokenCount,
    });
    const answer = { key: `${id}/answer/${index}`, tokenCount: outputTokenCount, answerOf: index };
    const append = part(
      `${id}/${index + 1}`,
      Math.min(30_000, drawLogNormal(kind.appendTokens, 1.3, random)),
    );
    parts = [...parts, answer, append];
    // What no longer fits is summed up: the prefix after the task is another.
    if (tokenCountOf(parts) > MOST_PROMPT_TOKENS) {
      parts = [...opening, part(`${id}/summary/${index}`, SUMMARY_TOKENS), append];
    }
  }
  return planned;
}

function pauseMs(pause: ProgramKind['pause'], random: Random): number {
  if (pause === 'person') return Math.min(300_000, drawLogNormal(15_000, 0.9, random));
  // Most tools answer within a second; one in twenty-five builds, tests or waits for a person.
  return random() < 0.04
    ? Math.min(300_000, drawLogNormal(90_000, 0.8, random))
    : Math.min(60_000, drawLogNormal(400, 1.4, random));
}

const part = (key: string, tokenCount: number): PromptPart => ({
  key,
  tokenCount: Math.max(1, Math.round(tokenCount)),
  answerOf: null,
});

const tokenCountOf = (parts: readonly PromptPart[]): number =>
  parts.reduce((sum, { tokenCount }) => sum + tokenCount, 0);
