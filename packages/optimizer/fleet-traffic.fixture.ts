/**
 * Sessions for simulated fleets: agents whose prefix grows turn by turn beside chats and batch calls (algorithms.md e: half,
 * 40 % and a tenth of the sessions), closed-loop. Used by routing.test.ts and the bench's parts `routing` and `specialise`.
 */
import type { Objectives, SequenceSpec, ServiceTier } from '@variator/scheduler/sequence';
import type { TwinSession, TwinTurn } from './arrival-sources.ts';
import { type SeededRandom, seededRandom } from './seeded-random.ts';
import { GENERATED_TOKEN_ID, tokenAt } from './synthetic-prompts.ts';

export type KindName = 'agent' | 'chat' | 'batch' | 'document';

/** Lengths are medians of log-normals of spread 0.6; turns are geometric. */
interface SessionKind {
  /** System prompt and tools, the same for all sessions of the kind. */
  readonly systemTokens: number;
  readonly firstTokens: number;
  readonly appendTokens: number;
  readonly outputTokens: number;
  readonly meanTurnCount: number;
  readonly pauseMs: number;
  /** Spread of the pauses: tools answer at once or in minutes, people in seconds. */
  readonly pauseSpread: number;
  readonly serviceTier: ServiceTier;
  readonly objectives: Objectives;
}

export const kinds: Readonly<Record<KindName, SessionKind>> = {
  agent: {
    ...{ systemTokens: 3000, firstTokens: 9000, appendTokens: 750, outputTokens: 240, meanTurnCount: 12 },
    ...{ pauseMs: 600, pauseSpread: 1.6, serviceTier: 'default', objectives: { ttftMs: 3000, itlMs: 60 } },
  },
  chat: {
    ...{ systemTokens: 600, firstTokens: 300, appendTokens: 80, outputTokens: 220, meanTurnCount: 5 },
    ...{ pauseMs: 12_000, pauseSpread: 0.8, serviceTier: 'default', objectives: { ttftMs: 1000, itlMs: 60 } },
  },
  batch: {
    ...{ systemTokens: 0, firstTokens: 2500, appendTokens: 0, outputTokens: 120, meanTurnCount: 1 },
    ...{ pauseMs: 0, pauseSpread: 0, serviceTier: 'flex', objectives: { ttftMs: 0, itlMs: 0 } },
  },
  document: {
    ...{ systemTokens: 0, firstTokens: 16_000, appendTokens: 0, outputTokens: 300, meanTurnCount: 1 },
    ...{ pauseMs: 0, pauseSpread: 0, serviceTier: 'default', objectives: { ttftMs: 8000, itlMs: 120 } },
  },
};

export type Mix = readonly (readonly [share: number, kind: KindName])[];

/** Shares are of sessions. */
export const agentsAndChats: Mix = [
  [0.5, 'agent'],
  [0.4, 'chat'],
  [0.1, 'batch'],
];
/** Two regimes at once, for whether workers should be kept for one. */
export const chatsAndDocuments: Mix = [
  [0.8, 'chat'],
  [0.2, 'document'],
];
const MOST_PROMPT_TOKENS = 100_000;
const MOST_TURNS = 60;

export interface FleetTraffic {
  readonly mix: Mix;
  readonly sessionsPerSecond: number;
  readonly spanMs: number;
  readonly seed: number;
}

/** Sessions that begin within the span, Poisson. A request's `program` names its kind, its session is in `sequenceId`. */
export function* fleetSessions({
  mix,
  sessionsPerSecond,
  spanMs,
  seed,
}: FleetTraffic): Generator<TwinSession> {
  const random = seededRandom(seed);
  let at = 0;
  for (let index = 0; ; index += 1) {
    at += (-1000 * Math.log(1 - random.uniform())) / sessionsPerSecond;
    if (at >= spanMs) return;
    const kind = drawnKind(mix, random.uniform());
    yield { startsAt: at, turns: turnsOf(index, kind, seededRandom(seed * 1_000_003 + index)) };
  }
}

function drawnKind(mix: Mix, uniform: number): KindName {
  let passed = 0;
  for (const [share, kind] of mix) {
    passed += share;
    if (uniform < passed) return kind;
  }
  return mix.at(-1)?.[1] ?? 'chat';
}

export const kindOf = ({ sequenceId }: SequenceSpec): KindName => sequenceId.split('/')[1] as KindName;
export const sessionOf = ({ sequenceId }: SequenceSpec): number => Number(sequenceId.split('/')[0]);

function turnsOf(session: number, name: KindName, random: SeededRandom): TwinTurn[] {
  const kind = kinds[name];
  const lengthOf = (median: number, spread: number): number =>
    Math.max(1, Math.round(median * Math.exp(spread * random.normal())));
  const tokenIds: number[] = [];
  const append = (source: string, count: number): void => {
    for (let index = 0; index < count; index += 1) tokenIds.push(tokenAt(source, tokenIds.length));
  };
  append(`system of ${name}`, kind.systemTokens);
  const turnCount =
    kind.meanTurnCount === 1
      ? 1
      : Math.min(
          MOST_TURNS,
          1 + Math.floor(Math.log(1 - random.uniform()) / Math.log(1 - 1 / kind.meanTurnCount)),
        );
  const source = `session ${session}`;
  return Array.from({ length: turnCount }, (_, turn): TwinTurn => {
    const addedTokens = lengthOf(turn === 0 ? kind.firstTokens : kind.appendTokens, 0.6);
    const outputTokens = lengthOf(kind.outputTokens, 0.6);
    return {
      pauseMs: turn === 0 ? 0 : kind.pauseMs * Math.exp(kind.pauseSpread * random.normal()),
      spec(): SequenceSpec {
        // A client that comes near the model's length begins anew.
        if (tokenIds.length + addedTokens > MOST_PROMPT_TOKENS) tokenIds.length = kind.systemTokens;
        append(source, addedTokens);
        const promptTokenIds = tokenIds.slice();
        for (let token = 0; token < outputTokens; token += 1) tokenIds.push(GENERATED_TOKEN_ID);
        return {
          ...{ sequenceId: `${session}/${name}/${turn}`, promptTokenIds, generatedTokenIds: [] },
          sampling: { temperature: 0, topP: 1, topK: 0, seed: 0 },
          ...{ maxTokens: outputTokens, stopTokenIds: [], tenant: '', program: '' },
          ...{ serviceTier: kind.serviceTier, objectives: kind.objectives },
          ...{ ageLimits: null, cacheSalt: '' },
        };
      },
    };
  });
}
