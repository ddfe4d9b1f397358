/**
 * Sends a trace, or agents' traffic, to an endpoint and gives the report: joins source, probe, prompts, sender and tally.
 * Called by the command, the tests and the benches. Prints nothing.
 */
import { setMaxListeners } from 'node:events';
import { type AskedAnswer, EndpointClient } from './answer-request.ts';
import { driveSessions } from './drive-sessions.ts';
import { type EndpointAbilities, probeEndpoint } from './endpoint-probe.ts';
import type { PlannedPrompt, PlannedSession, PlannedTurn, TrafficSource } from './planned-traffic.ts';
import { chatMessages, type LiveAnswers, promptText, promptTokenIds } from './prompt-writer.ts';
import type { ReplayFlags } from './replay-flags.ts';
import { scaleTurn } from './scale-lengths.ts';
import { type TrafficReport, TrafficTally } from './traffic-report.ts';

export interface ReplayProgress {
  readonly share: number | null;
  readonly requestCount: number;
  readonly faultCount: number;
  readonly inFlightCount: number;
}

export interface ReplayResult {
  readonly abilities: EndpointAbilities;
  readonly report: TrafficReport;
}

/**
 * @param onStart is called once the endpoint is known, with what tells the progress
 * @throws ConfigError where the endpoint does not answer
 */
export async function replayTrace(
  source: TrafficSource,
  flags: ReplayFlags,
  signal: AbortSignal,
  onStart: (abilities: EndpointAbilities, progress: () => ReplayProgress) => void = () => {},
): Promise<ReplayResult> {
  // Each request under way and each pause listens.
  setMaxListeners(0, signal);
  const endpoint = { url: flags.url, apiKey: flags.apiKey };
  const client = new EndpointClient(endpoint, flags.timeoutMs);
  try {
    const abilities = await probeEndpoint(endpoint, client, flags);
    const tally = new TrafficTally(flags.objectives);
    const startedAt = performance.now();
    onStart(abilities, () => ({
      share: shareOf(source, flags, performance.now() - startedAt, tally.requestCount),
      requestCount: tally.requestCount,
      faultCount: tally.faultCount,
      inFlightCount: tally.inFlightCount,
    }));
    const drive = await driveSessions(source.sessions, {
      ...flags,
      signal,
      send(session, turn, answers) {
        tally.sending();
        return client.ask(
          askedAnswer(session, scaleTurn(turn, flags.scale), answers, abilities, flags),
          signal,
        );
      },
      onTurn(record) {
        const turn = scaleTurn(record.turn, flags.scale);
        const session = { ...record.session, serviceTier: flags.tier ?? record.session.serviceTier };
        tally.take({ ...record, session, turn }, plannedTokenCount(turn.prompt));
      },
    });
    return { abilities, report: tally.report(drive) };
  } finally {
    client.close();
  }
}

/** What is sent for a turn. Exported for the tests. */
export function askedAnswer(
  session: PlannedSession,
  turn: PlannedTurn,
  answers: LiveAnswers,
  abilities: EndpointAbilities,
  flags: Pick<ReplayFlags, 'seed' | 'tier'>,
): AskedAnswer {
  const { prompt } = turn;
  const { tokenIds, tokensPerWord, api, takesIgnoreEos, takesUsage } = abilities;
  const tier = flags.tier ?? session.serviceTier;
  const settings = {
    model: abilities.modelId,
    max_tokens: turn.outputTokenCount,
    temperature: 0,
    stream: true,
    ...(takesUsage ? { stream_options: { include_usage: true } } : {}),
    ...(takesIgnoreEos ? { ignore_eos: true } : {}),
    ...(tier === '' ? {} : { service_tier: tier }),
  };
  const headers = {
    'x-session-id': session.sessionId,
    ...(session.programId === '' ? {} : { 'x-program-id': session.programId }),
  };
  if (prompt.kind === 'messages' || api === 'chat') {
    const messages = chatMessages(prompt, flags.seed, tokensPerWord, answers);
    return { path: '/v1/chat/completions', headers, body: { ...settings, messages } };
  }
  const body =
    tokenIds === null
      ? { ...settings, prompt: promptText(prompt.parts, flags.seed, tokensPerWord, answers) }
      : {
          ...settings,
          prompt: promptTokenIds(prompt.parts, flags.seed, tokenIds, answers),
          return_token_ids: true,
        };
  return { path: '/v1/completions', headers, body };
}

/** 0 for real messages: only the server can count them. */
const plannedTokenCount = (prompt: PlannedPrompt): number =>
  prompt.kind === 'parts' ? prompt.parts.reduce((sum, { tokenCount }) => sum + tokenCount, 0) : 0;

/** Whichever bound is nearest. */
function shareOf(
  source: TrafficSource,
  { durationMs, mostTurnCount }: ReplayFlags,
  elapsedMs: number,
  sentCount: number,
): number | null {
  const shares = [
    durationMs === null ? null : elapsedMs / durationMs,
    Number.isFinite(mostTurnCount) ? sentCount / mostTurnCount : null,
    source.readShare(),
  ].filter((share) => share !== null);
  return shares.length === 0 ? null : Math.max(...shares);
}
