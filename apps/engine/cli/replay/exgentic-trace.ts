/**
 * Exgentic folders: `sessions/ID/agent/litellm/trace.jsonl`, one line a call of a real agent, with its messages. Each
 * session is a closed loop. The endpoint takes no tools yet: definitions go first as a system message, calls and results
 * become text of the assistant and the user, and the remarks say so. One session is in memory at a time.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { jsonOf } from './mooncake-trace.ts';
import {
  type PlannedSession,
  type PlannedTurn,
  type PromptMessage,
  TraceFaults,
  type TrafficSource,
} from './planned-traffic.ts';
import { LineFile } from './trace-lines.ts';

/** Only the end of a call was recorded; what it took is estimated from its tokens, as of the model that answered. */
const RECORDED_TTFT_MS = 700;
const RECORDED_TOKEN_MS = 8;

const call = z.object({
  timestamp: z.string(),
  prompt_tokens: z.int().min(0),
  completion_tokens: z.int().min(0),
  cost: z.number().nullish(),
  request: z.object({
    messages: z.array(
      z.object({
        role: z.string(),
        content: z.unknown().optional(),
        tool_calls: z.unknown().optional(),
      }),
    ),
    tools: z.array(z.unknown()).nullish(),
  }),
});

type Call = z.infer<typeof call>;
type TracedMessage = Call['request']['messages'][number];

interface Counts {
  toolMessages: number;
  toolCalls: number;
  toolDefinitions: number;
  cacheReplays: number;
}

const tracePath = (folder: string, id: string) => join(folder, id, 'agent', 'litellm', 'trace.jsonl');

/** The folder that holds the sessions: the one given, or `sessions` in it; null where there is none. */
export function exgenticSessions(path: string): string | null {
  const isHome = (folder: string) =>
    existsSync(folder) && readdirSync(folder).some((id) => existsSync(tracePath(folder, id)));
  return [path, join(path, 'sessions')].find(isHome) ?? null;
}

export async function exgenticTrace(folder: string, faults: TraceFaults): Promise<TrafficSource> {
  const counts: Counts = { toolMessages: 0, toolCalls: 0, toolDefinitions: 0, cacheReplays: 0 };
  const starts: { id: string; atMs: number }[] = [];
  for (const id of readdirSync(folder).sort()) {
    if (!existsSync(tracePath(folder, id))) continue;
    const [first] = await calls(folder, id, new TraceFaults(), 1);
    if (first) starts.push({ id, atMs: startOf(first) });
    else faults.add('a session without a call', tracePath(folder, id));
  }
  starts.sort((a, b) => a.atMs - b.atMs);
  let readCount = 0;
  async function* sessions(): AsyncGenerator<PlannedSession> {
    const firstMs = starts[0]?.atMs ?? 0;
    for (const { id, atMs } of starts) {
      readCount += 1;
      const all = await calls(folder, id, faults);
      if (all.length > 1 && all.every(({ cost }) => cost === 0)) {
        counts.cacheReplays += 1;
        continue;
      }
      const turns = plannedTurns(all, counts);
      yield {
        sessionId: `exgentic-${id}`,
        programId: id,
        serviceTier: '',
        startsAtMs: atMs - firstMs,
        turns,
      };
    }
  }
  return {
    faults,
    sessions: sessions(),
    remarks: () => remarks(counts),
    readShare: () => (starts.length === 0 ? 1 : readCount / starts.length),
  };
}

async function calls(folder: string, id: string, faults: TraceFaults, most = Number.POSITIVE_INFINITY) {
  const found: Call[] = [];
  for await (const { text, place } of new LineFile(tracePath(folder, id), faults).lines()) {
    const parsed = call.safeParse(jsonOf(text));
    if (parsed.success && !Number.isNaN(Date.parse(parsed.data.timestamp))) found.push(parsed.data);
    else faults.add('a line that is no call', `${id}/${place}`);
    if (found.length >= most) break;
  }
  return found.sort((a, b) => Date.parse(a.timestamp) - Date.parse(b.timestamp));
}

const startOf = ({ timestamp, completion_tokens }: Call): number =>
  Date.parse(timestamp) - RECORDED_TTFT_MS - completion_tokens * RECORDED_TOKEN_MS;

function plannedTurns(all: readonly Call[], counts: Counts): PlannedTurn[] {
  let before: readonly PromptMessage[] = [];
  return all.map((each, index) => {
    const previous = all[index - 1];
    const messages = promptMessages(each, counts).map((message, at): PromptMessage => {
      const known = before[at];
      if (known?.text === message.text && known.role === message.role) return known;
      // The first message beyond the prompt before is what was answered to it.
      const isAnswer = at === before.length && at > 0 && message.role === 'assistant';
      return isAnswer ? { ...message, answerOf: index - 1 } : message;
    });
    before = messages;
    return {
      pauseMs: previous === undefined ? 0 : Math.max(0, startOf(each) - Date.parse(previous.timestamp)),
      prompt: { kind: 'messages', messages },
      outputTokenCount: Math.max(1, each.completion_tokens),
    };
  });
}

function promptMessages({ request }: Call, counts: Counts): PromptMessage[] {
  const tools = request.tools ?? [];
  counts.toolDefinitions += tools.length;
  const definitions: PromptMessage[] =
    tools.length === 0
      ? []
      : [{ role: 'system', text: tools.map((tool) => JSON.stringify(tool)).join('\n'), answerOf: null }];
  return [...definitions, ...request.messages.map((message) => promptMessage(message, counts))];
}

function promptMessage({ role, content, tool_calls }: TracedMessage, counts: Counts): PromptMessage {
  const text = contentText(content);
  if (role === 'tool' || role === 'function') {
    counts.toolMessages += 1;
    return { role: 'user', text: `[tool result] ${text}`, answerOf: null };
  }
  if (role !== 'assistant') {
    return { role: role === 'system' || role === 'developer' ? 'system' : 'user', text, answerOf: null };
  }
  const called = Array.isArray(tool_calls) ? tool_calls.map((each) => JSON.stringify(each)) : [];
  counts.toolCalls += called.length;
  const lines = [...(text === '' ? [] : [text]), ...called.map((each) => `[tool call] ${each}`)];
  return { role: 'assistant', text: lines.join('\n'), answerOf: null };
}

function contentText(content: unknown): string {
  if (typeof content === 'string') return content;
  if (content === null || content === undefined) return '';
  if (!Array.isArray(content)) return JSON.stringify(content);
  return content
    .map((part: { text?: unknown }) => (typeof part?.text === 'string' ? part.text : JSON.stringify(part)))
    .join('\n');
}

function remarks(counts: Counts): string[] {
  const { toolMessages, toolCalls, toolDefinitions, cacheReplays } = counts;
  return [
    ...(toolMessages + toolCalls + toolDefinitions > 0
      ? [
          `Tools are sent as text: ${toolDefinitions} definitions, ${toolCalls} calls, ${toolMessages} results; answers are plain text of the recorded length.`,
        ]
      : []),
    'Pauses are the recorded gaps less an estimate of what each call took (700 ms and 8 ms a token).',
    ...(cacheReplays > 0
      ? [`${cacheReplays} sessions were left out: answered from a client's cache, their times mean nothing.`]
      : []),
  ];
}
