/**
 * The last stretch of a request: the runs of one exchange become SSE chunks as their tokens come, or one whole body at
 * the end. Called by the endpoints with runs that have been submitted; every run is pulled to its end whatever happens,
 * because its row is written there.
 */
import type { RequestError } from '../generation/request-error.ts';
import type { AnswerEvent, AnswerRun, Exchange } from './answer-run.ts';
import type { AnswerShape, Usage, WholeAnswer } from './answer-shapes.ts';
import { errorBody } from './error-body.ts';
import type { SseStream } from './sse-stream.ts';

type Finished = Extract<AnswerEvent, { kind: 'finished' }>;

const sum = (finished: readonly Finished[]): Usage => ({
  promptTokenCount: finished.reduce((total, each) => total + each.promptTokenCount, 0),
  cachedTokenCount: finished.reduce((total, each) => total + each.cachedTokenCount, 0),
  completionTokenCount: finished.reduce((total, each) => total + each.completionTokenCount, 0),
});

/** Cancels all others where one fails; resolves when each has ended. */
async function pullAll(
  runs: readonly AnswerRun[],
  take: (event: Exclude<AnswerEvent, { kind: 'failed' }>, index: number) => Promise<void>,
): Promise<RequestError | null> {
  let failure: RequestError | null = null;
  const pull = async (run: AnswerRun, index: number): Promise<void> => {
    try {
      for (let event = await run.next(); event !== null; event = await run.next()) {
        if (failure !== null) continue;
        if (event.kind === 'failed') {
          failure = event.error;
          for (const other of runs) other.cancel();
        } else {
          await take(event, index);
        }
      }
    } finally {
      await run.abandon();
    }
  };
  const settled = await Promise.allSettled(runs.map(pull));
  const broken = settled.find((each) => each.status === 'rejected');
  if (broken !== undefined) throw broken.reason;
  return failure;
}

/**
 * Streams. The head is sent with the first token, so that what fails before it still has an honest status.
 * @returns the failure, where nothing had been sent; the caller answers it
 */
export async function streamAnswers(
  runs: readonly AnswerRun[],
  shape: AnswerShape,
  exchange: Exchange,
  wishes: { readonly isUsageWanted: boolean; readonly areTokenIdsWanted: boolean },
  openStream: () => SseStream,
): Promise<RequestError | null> {
  let sse: SseStream | null = null;
  const opened = async (): Promise<SseStream> => {
    if (sse !== null) return sse;
    sse = openStream();
    exchange.hasBegun = true;
    for (const chunk of shape.opening()) await sse.send(chunk);
    return sse;
  };
  const finished: Finished[] = [];
  const failure = await pullAll(runs, async (event, index) => {
    if (exchange.isClientGone) return;
    const stream = await opened();
    if (event.kind === 'delta') {
      if (event.text !== '' || wishes.areTokenIdsWanted) {
        await stream.send(shape.delta(index, event.text, [event.tokenId]));
      }
      return;
    }
    finished.push(event);
    if (event.text !== '') await stream.send(shape.delta(index, event.text, []));
    await stream.send(shape.finish(index, event.reason));
  });
  if (sse === null) return failure;
  const stream: SseStream = sse;
  if (failure !== null) await stream.send(errorBody(failure));
  else if (wishes.isUsageWanted) await stream.send(shape.usage(sum(finished)));
  await stream.end();
  return null;
}

/** @throws RequestError where a run failed */
export async function wholeAnswers(runs: readonly AnswerRun[], shape: AnswerShape): Promise<object> {
  const answers = runs.map(() => ({ texts: [] as string[], tokenIds: [] as number[] }));
  const finished: Finished[] = [];
  const failure = await pullAll(runs, async (event, index) => {
    const answer = answers[index];
    if (answer === undefined) return;
    answer.texts.push(event.text);
    if (event.kind === 'delta') answer.tokenIds.push(event.tokenId);
    else finished[index] = event;
  });
  if (failure !== null) throw failure;
  const whole = answers.map(
    ({ texts, tokenIds }, index): WholeAnswer => ({
      text: texts.join(''),
      tokenIds,
      reason: finished[index]?.reason ?? 'stop',
    }),
  );
  return shape.whole(whole, sum(finished));
}
