/**
 * Asks ClickHouse within a bound, so that a silent store never holds a page. Called by the noun files that read
 * telemetry. Retries nothing: the page asks again.
 */

import { QueryError } from '@variator/clickhouse/client';

export const TELEMETRY_LIMIT_MS = 3000;

/** The world's: ClickHouse is absent, silent or failed. */
export class TelemetryFault extends Error {
  override readonly name = 'TelemetryFault';
}

/** @throws TelemetryFault with a sentence for people */
export async function answerOf<Client, Answer>(
  telemetry: Client | null,
  ask: (client: Client) => Promise<Answer>,
  limitMs: number = TELEMETRY_LIMIT_MS,
): Promise<Answer> {
  if (telemetry === null) throw new TelemetryFault('There is no ClickHouse: nothing measured can be shown.');
  let timer: NodeJS.Timeout | undefined;
  const silence = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new TelemetryFault(`ClickHouse did not answer within ${limitMs / 1000} seconds.`)),
      limitMs,
    );
  });
  const answer = ask(telemetry);
  // The late failure of an answer nobody waits for any more is that of the timeout already reported.
  answer.catch(() => undefined);
  try {
    return await Promise.race([answer, silence]);
  } catch (error) {
    if (error instanceof TelemetryFault) throw error;
    // A code means that it answered, but not with rows, e.g. before its tables were made.
    const isRefusal = error instanceof QueryError && error.code !== '';
    const sentence = isRefusal
      ? `ClickHouse could not answer this query (code ${error.code}).`
      : 'ClickHouse does not answer; what it stored is not lost.';
    throw new TelemetryFault(sentence, { cause: error });
  } finally {
    clearTimeout(timer);
  }
}
