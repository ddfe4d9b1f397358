/**
 * The last stretch of a request: the runs of one exchange become SSE chunks as their tokens come, or one whole body at
 * the end. Called by the endpoints with runs that have been submitted; every run is pulled to its end whatever happens,
 * because its row is written there.
 */
import type { RequestError } from '../generation/request-error.ts';
import type { AnswerEvent, AnswerRun, Exchange } from './answer-run.ts';
import type { AnswerShape, AnswerToken, Usage, WholeAnswer } from './answer-shapes.ts';
import type { AnswerWishes } from './completion-settings.ts';
import { errorBody } from './error-body.ts';
import type { SseStream } from './sse-stream.ts';

type Finished = Extract<AnswerEvent, { kind: 'finished' }>;

/** By index of the answer. A prompt counts once, however many answers it gets: as its first one found it. */
const sum = (finished: readonly Finished[], choiceCount: number): Usage => ({
  promptTokenCount: finished.reduce(
    (total, each, index) => total + (index % choiceCount === 0 ? each.promptTokenCount : 0),
    0,
  ),
  cachedTokenCount: finished.reduce(
    (total, each, index) => total + (index % choiceCount === 0 ? each.cachedTokenCount : 0),
    0,
  ),
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
  wishes: AnswerWishes,
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
      if (event.text !== '' || wishes.areTokenIdsWanted || wishes.areLogprobsWanted) {
        await stream.send(shape.delta(index, event.text, [event]));
      }
      return;
    }
    finished[index] = event;
    if (event.text !== '') await stream.send(shape.delta(index, event.text, []));
    await stream.send(shape.finish(index, event.reason));
  });
  if (sse === null) return failure;
  const stream: SseStream = sse;
  if (failure !== null) await stream.send(errorBody(failure));
  else if (wishes.isUsageWanted) await stream.send(shape.usage(sum(finished, wishes.choiceCount)));
  await stream.end();
  return null;
}

/** @throws RequestError where a run failed */
export async function wholeAnswers(
  runs: readonly AnswerRun[],
  shape: AnswerShape,
  wishes: AnswerWishes,
): Promise<object> {
  const answers = runs.map(() => ({ texts: [] as string[], tokens: [] as AnswerToken[] }));
  const finished: Finished[] = [];
  const failure = await pullAll(runs, async (event, index) => {
    const answer = answers[index];
    if (answer === undefined) return;
    answer.texts.push(event.text);
    if (event.kind === 'delta') answer.tokens.push({ tokenId: event.tokenId, logprobs: event.logprobs });
    else finished[index] = event;
  });
  if (failure !== null) throw failure;
  const whole = answers.map(
    ({ texts, tokens }, index): WholeAnswer => ({
      text: texts.join(''),
      tokens,
      reason: finished[index]?.reason ?? 'stop',
    }),
  );
  return shape.whole(whole, sum(finished, wishes.choiceCount));
}
