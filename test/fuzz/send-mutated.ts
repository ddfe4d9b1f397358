/**
 * Sends mutated bodies to an endpoint and counts the statuses. A body that a mutation made to ask for a long answer is left
 * after a while, which is a client's right. Used by `npm run fuzz` and by its test.
 */
import { type MutatedRequest, mutatedRequests } from './mutated-bodies.ts';

export interface FuzzOutcome {
  readonly byStatus: Readonly<Record<string, number>>;
  /** Answers of 500 and above, and connections that broke, with the body that did it. */
  readonly faults: readonly { readonly path: string; readonly body: string; readonly outcome: string }[];
  readonly leftCount: number;
}

const LANES = 8;
const PATIENCE_MS = 5000;
const MOST_FAULTS_KEPT = 20;

export async function sendMutated(
  target: { readonly url: string; readonly modelId: string },
  options: { readonly count: number; readonly seed: number; readonly onSent?: (count: number) => void },
): Promise<FuzzOutcome> {
  const bodies = mutatedRequests(target.modelId, options.seed);
  const byStatus: Record<string, number> = {};
  const faults: { path: string; body: string; outcome: string }[] = [];
  let sentCount = 0;
  let leftCount = 0;
  const fault = ({ path, body }: MutatedRequest, outcome: string): void => {
    if (faults.length < MOST_FAULTS_KEPT) {
      faults.push({ path, body: Buffer.from(body).toString('latin1').slice(0, 2000), outcome });
    }
  };
  const lane = async (): Promise<void> => {
    while (sentCount < options.count) {
      sentCount += 1;
      options.onSent?.(sentCount);
      const request = bodies.next().value as MutatedRequest;
      try {
        const response = await fetch(`${target.url}${request.path}`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: request.body,
          signal: AbortSignal.timeout(PATIENCE_MS),
        });
        const answer = await response.text();
        byStatus[response.status] = (byStatus[response.status] ?? 0) + 1;
        if (response.status >= 500 && response.status !== 503) fault(request, `${response.status} ${answer}`);
        if (response.status === 200 && answer.startsWith('data: {"error"')) fault(request, answer);
      } catch (error) {
        if (error instanceof Error && error.name === 'TimeoutError') leftCount += 1;
        else
          fault(request, error instanceof Error ? `${error.message} ${String(error.cause)}` : String(error));
      }
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  return { byStatus, faults, leftCount };
}
