/**
 * Azure's csv of 2023 (Splitwise): TIMESTAMP,ContextTokens,GeneratedTokens. Independent requests whose prompts share
 * nothing: the trace names neither sessions nor prefixes.
 */
import type { PlannedSession, TraceFaults, TrafficSource } from './planned-traffic.ts';
import { LineFile, type TraceLine } from './trace-lines.ts';

export const azureHeader = 'TIMESTAMP,ContextTokens,GeneratedTokens';

export function azureTrace(path: string, faults: TraceFaults): TrafficSource {
  const file = new LineFile(path, faults);
  return {
    faults,
    sessions: sessions(file.lines(), faults),
    remarks: () => [],
    readShare: () => file.readShare(),
  };
}

async function* sessions(
  lines: AsyncIterable<TraceLine>,
  faults: TraceFaults,
): AsyncGenerator<PlannedSession> {
  let firstMs: number | null = null;
  let startsAtMs = 0;
  let count = 0;
  for await (const { text, place } of lines) {
    if (text === azureHeader) continue;
    const [time = '', context = '', generated = '', ...more] = text.split(',');
    const atMs = timeMs(time);
    const [contextTokens, generatedTokens] = [whole(context), whole(generated)];
    if (atMs === null || contextTokens === null || generatedTokens === null || more.length > 0) {
      faults.add('a line that is no TIMESTAMP,ContextTokens,GeneratedTokens', place);
      continue;
    }
    firstMs ??= atMs;
    if (atMs - firstMs < startsAtMs) faults.add('a time before that of the line above (sent with it)', place);
    startsAtMs = Math.max(startsAtMs, atMs - firstMs);
    count += 1;
    yield {
      sessionId: `azure-${count}`,
      programId: '',
      serviceTier: '',
      startsAtMs,
      turns: [
        {
          pauseMs: 0,
          prompt: {
            kind: 'parts',
            parts: [{ key: `azure-${count}`, tokenCount: Math.max(1, contextTokens), answerOf: null }],
          },
          outputTokenCount: Math.max(1, generatedTokens),
        },
      ],
    };
  }
}

/** Wall clock without a zone, with 100 ns digits, which Date does not read. */
function timeMs(text: string): number | null {
  const found = /^(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(\.\d+)?$/.exec(text.trim());
  if (!found) return null;
  const secondsMs = Date.parse(`${found[1]}T${found[2]}Z`);
  return Number.isNaN(secondsMs) ? null : secondsMs + Number(found[3] ?? 0) * 1000;
}

const whole = (text: string): number | null => (/^\d{1,9}$/.test(text.trim()) ? Number(text) : null);
