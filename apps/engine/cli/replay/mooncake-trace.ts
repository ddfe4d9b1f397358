/**
 * Mooncake's jsonl (FAST25): {timestamp, input_length, output_length, hash_ids}, an id for each 512 tokens of the prompt
 * that stands for its whole prefix. Equal ids become equal parts. Independent requests, in the file's order.
 */
import { z } from 'zod';
import type { PlannedSession, TraceFaults, TrafficSource } from './planned-traffic.ts';
import { LineFile, type TraceLine } from './trace-lines.ts';

const BLOCK_TOKENS = 512;
/** The conversation trace's clock ticks every 3 s or so: what bears one time is spread until the next. */
const MOST_SPREAD_MS = 3000;
const MOST_AT_ONE_TIME = 10_000;

const row = z.object({
  timestamp: z.number().min(0),
  input_length: z.int().min(1),
  output_length: z.int().min(0),
  hash_ids: z.array(z.union([z.int(), z.string()])),
});

interface MooncakeRequest {
  readonly timestampMs: number;
  readonly session: Omit<PlannedSession, 'startsAtMs'>;
}

export function mooncakeTrace(path: string, faults: TraceFaults): TrafficSource {
  const file = new LineFile(path, faults);
  return {
    faults,
    sessions: spread(requests(file.lines(), faults)),
    remarks: () => [],
    readShare: () => file.readShare(),
  };
}

async function* requests(
  lines: AsyncIterable<TraceLine>,
  faults: TraceFaults,
): AsyncGenerator<MooncakeRequest> {
  let latestMs = 0;
  let count = 0;
  for await (const { text, place } of lines) {
    const parsed = row.safeParse(jsonOf(text));
    if (!parsed.success) {
      faults.add('a line that is no Mooncake request', place);
      continue;
    }
    const { timestamp, input_length, output_length, hash_ids } = parsed.data;
    const blockCount = Math.ceil(input_length / BLOCK_TOKENS);
    if (hash_ids.length !== blockCount) {
      faults.add(`hash_ids that do not cover the prompt in blocks of ${BLOCK_TOKENS}`, place);
      continue;
    }
    if (timestamp < latestMs) faults.add('a time before that of the line above (sent with it)', place);
    latestMs = Math.max(latestMs, timestamp);
    count += 1;
    const parts = hash_ids.map((id, index) => ({
      key: String(id),
      tokenCount: Math.min(BLOCK_TOKENS, input_length - index * BLOCK_TOKENS),
      answerOf: null,
    }));
    yield {
      timestampMs: latestMs,
      session: {
        sessionId: `mooncake-${count}`,
        programId: '',
        serviceTier: '',
        turns: [
          {
            pauseMs: 0,
            prompt: { kind: 'parts', parts },
            // Some answers were cut before their first token; the endpoint gives at least one.
            outputTokenCount: Math.max(1, output_length),
          },
        ],
      },
    };
  }
}

/** Requests that bear one time are spread evenly until the next time. */
async function* spread(requests: AsyncIterable<MooncakeRequest>): AsyncGenerator<PlannedSession> {
  let group: MooncakeRequest[] = [];
  const groupMs = () => group[0]?.timestampMs ?? 0;
  function* release(untilMs: number): Generator<PlannedSession> {
    const spanMs = Math.min(MOST_SPREAD_MS, untilMs - groupMs());
    for (const [index, { timestampMs, session }] of group.entries())
      yield { ...session, startsAtMs: timestampMs + (spanMs * index) / group.length };
    group = [];
  }
  for await (const request of requests) {
    if (group.length > 0 && request.timestampMs > groupMs()) yield* release(request.timestampMs);
    if (group.length === MOST_AT_ONE_TIME) yield* release(groupMs());
    group.push(request);
  }
  yield* release(groupMs());
}

/** null where it is no JSON. */
export function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
