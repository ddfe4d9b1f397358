/**
 * What both endpoints do with a parsed body: admit, tokenise, submit, send, and let the permit go when the last sequence
 * has ended. Called by the routes of both. Refuses with RequestErrors; a client who leaves cancels at once.
 */
import { randomUUID } from 'node:crypto';
import type { RequestRow } from '@variator/clickhouse/request-row';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { type Fleet, FleetError, type WorkerView } from '../fleet/fleet.ts';
import { type AcceptedRequest, choiceOf } from '../generation/accept-request.ts';
import type { Generation } from '../generation/generation.ts';
import { invalidRequest } from '../generation/request-error.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { RequestSpan } from '../telemetry/traces.ts';
import type { Admission, Permit } from './admission.ts';
import { answerHeaders } from './answer-headers.ts';
import { AnswerRun, type Exchange, type RequestRecorder } from './answer-run.ts';
import type { AnswerShape, ShapeOptions } from './answer-shapes.ts';
import type { AnswerWishes, AskedAnswerTerms } from './completion-settings.ts';
import { unavailable } from './error-body.ts';
import {
  ageLimitsLeft,
  type LineOwner,
  lineTerms,
  type RequestTerms,
  requestTerms,
  type TermsParts,
} from './request-terms.ts';
import { streamAnswers, wholeAnswers } from './send-answers.ts';
import { assertServed } from './served-model.ts';
import { type SseLimits, SseStream } from './sse-stream.ts';

export interface EndpointParts extends TermsParts {
  readonly generation: Generation;
  readonly fleet: Fleet;
  readonly recorder: RequestRecorder;
  readonly metrics: Metrics;
  readonly admission: Admission;
  readonly sseLimits: SseLimits;
  readonly now: () => number;
  /** Why a load balancer should send none here, for people; '' when it should. */
  readonly unreadyReason: () => string;
  /** Why requests are refused now, for people; '' while they are taken, if only to wait for a worker. */
  readonly refusalReason: () => string;
  /** What clients call the model; answers report the first. */
  readonly servedModelNames: readonly string[];
  readonly version: string;
  /** Which workers have work and make no steps; '' while one advances. */
  readonly stalledReason: () => string;
}

export interface AskedAnswer {
  readonly endpoint: RequestRow['endpoint'];
  readonly idPrefix: string;
  readonly model: string;
  readonly wishes: AnswerWishes;
  readonly terms: AskedAnswerTerms;
  /** One for each prompt. @throws RequestError when called */
  readonly prompts: readonly (() => Promise<AcceptedRequest>)[];
  readonly shape: (options: ShapeOptions) => AnswerShape;
}

const LATE_MS = 500;
/** Node's timers know no longer span. */
const MOST_TIMER_MS = 2 ** 31 - 1;

/** @throws RequestError while nothing has been sent */
export async function answer(
  request: FastifyRequest,
  reply: FastifyReply,
  asked: AskedAnswer,
  parts: EndpointParts,
): Promise<object | undefined> {
  const arrivedAt = parts.now();
  request.span?.asked(asked.model);
  refuseUntakable(asked, parts);
  const { isStreamed } = asked.wishes;
  const terms = requestTerms(request.headers, { ...asked.terms, isStreamed }, parts, arrivedAt);
  if (request.refusable !== null) request.refusable = { ...request.refusable, terms, isStreamed };
  const exchange: Exchange = { hasBegun: false, isClientGone: false };
  let runs: readonly AnswerRun[] = [];
  reply.raw.on('close', () => {
    if (reply.raw.writableFinished) return;
    exchange.isClientGone = true;
    for (const run of runs) run.cancel();
  });

  let permit: Permit | null = null;
  let deadline: NodeJS.Timeout | null = null;
  try {
    permit = parts.admission.enter(answerCountOf(asked), terms.tenant);
    const accepted = await acceptAll(asked, terms, permit, parts);
    if (exchange.isClientGone) {
      reply.hijack();
      return undefined;
    }
    const id = `${asked.idPrefix}-${randomUUID().replaceAll('-', '')}`;
    const recorder = traced(parts.recorder, request.span);
    runs = await submitAll(
      accepted,
      asked,
      {
        id,
        arrivedAt,
        exchange,
        terms,
        permit,
        // From here on its sequences have the rows.
        onSubmitted: () => {
          request.refusable = null;
        },
      },
      { ...parts, recorder },
    );
    deadline = expireLate(runs, terms, parts.now() - arrivedAt);
    const shape = shapeOf(accepted, asked, { id, arrivedAt, terms }, parts);
    if (!asked.wishes.isStreamed) {
      return await wholeAnswers(runs, shape, asked.wishes);
    }
    const failure = await streamAnswers(runs, shape, exchange, asked.wishes, () => {
      reply.hijack();
      return new SseStream(reply.raw, parts.sseLimits, {
        'x-request-id': request.id,
        ...answerHeaders(parts.admission.load(), parts.now() - arrivedAt),
      });
    });
    if (failure !== null) throw failure;
    if (!reply.sent) reply.hijack();
    return undefined;
  } catch (error) {
    // A head has gone out, so that no status can say it: the broken connection does.
    if (exchange.hasBegun) reply.raw.destroy();
    throw error;
  } finally {
    if (deadline !== null) clearTimeout(deadline);
    permit?.release();
    terms.ended(parts.now());
  }
}

const traced = (recorder: RequestRecorder, span: RequestSpan | null): RequestRecorder =>
  span === null
    ? recorder
    : {
        record(table, row) {
          recorder.record(table, row);
          span.rowEnded(row);
        },
        refused: recorder.refused,
        tokenGap: recorder.tokenGap,
      };

/**
 * The answer to a line of a batch: as online, but whole, in the gaps that others leave, and cancelled by the signal.
 * @throws RequestError
 */
export async function answerLine(
  asked: AskedAnswer,
  owner: LineOwner,
  parts: EndpointParts,
  signal: AbortSignal,
): Promise<object> {
  const arrivedAt = parts.now();
  refuseUntakable(asked, parts);
  const terms = lineTerms(owner, asked.terms, parts);
  const exchange: Exchange = { hasBegun: false, isClientGone: false };
  let runs: readonly AnswerRun[] = [];
  const leave = (): void => {
    exchange.isClientGone = true;
    for (const run of runs) run.cancel();
  };
  const permit = parts.admission.enter(answerCountOf(asked), terms.tenant);
  signal.addEventListener('abort', leave);
  try {
    const accepted = await acceptAll(asked, terms, permit, parts);
    if (signal.aborted) throw unavailable('The batch has ended.');
    const id = `${asked.idPrefix}-${randomUUID().replaceAll('-', '')}`;
    const own = { id, arrivedAt, exchange, terms, permit, onSubmitted: () => {} };
    runs = await submitAll(accepted, asked, own, parts);
    return await wholeAnswers(runs, shapeOf(accepted, asked, { id, arrivedAt, terms }, parts), asked.wishes);
  } finally {
    signal.removeEventListener('abort', leave);
    permit.release();
  }
}

/** @throws RequestError */
function refuseUntakable(asked: AskedAnswer, parts: EndpointParts): void {
  assertServed(asked.model, parts.servedModelNames);
  const reason = parts.refusalReason();
  if (reason !== '') throw unavailable(`The server cannot take requests now: ${reason}`);
}

/** The worker ends what is too old before every step; this is for when no worker does. */
function expireLate(
  runs: readonly AnswerRun[],
  { deadlineMs }: RequestTerms,
  elapsedMs: number,
): NodeJS.Timeout | null {
  if (deadlineMs === null) return null;
  return setTimeout(
    () => {
      for (const run of runs) run.expire();
    },
    Math.min(MOST_TIMER_MS, deadlineMs - elapsedMs + LATE_MS),
  );
}

/** Sequences that it takes. */
export const answerCountOf = ({ prompts, wishes }: AskedAnswer): number =>
  prompts.length * wishes.choiceCount;

/** One for each answer: all choices of the first prompt, then those of the next. @throws RequestError */
async function acceptAll(
  asked: AskedAnswer,
  terms: RequestTerms,
  permit: Permit,
  parts: EndpointParts,
): Promise<readonly AcceptedRequest[]> {
  const { choiceCount } = asked.wishes;
  const prompts = await Promise.all(asked.prompts.map((accept) => accept()));
  const accepted = prompts.flatMap((prompt) =>
    Array.from({ length: choiceCount }, (_, choice) => choiceOf(prompt, choice)),
  );
  const promptTokenCounts = accepted.map(({ promptTokenIds }) => promptTokenIds.length);
  assertCanFit(promptTokenCounts, parts.fleet.workers());
  permit.takePrompts(promptTokenCounts, terms.serviceTier);
  return accepted;
}

function shapeOf(
  accepted: readonly AcceptedRequest[],
  asked: AskedAnswer,
  own: { readonly id: string; readonly arrivedAt: number; readonly terms: RequestTerms },
  parts: EndpointParts,
): AnswerShape {
  return asked.shape({
    id: own.id,
    createdAt: own.arrivedAt,
    modelId: parts.servedModelNames[0] ?? parts.generation.modelId,
    isUsageWanted: asked.wishes.isStreamed && asked.wishes.isUsageWanted,
    areTokenIdsWanted: asked.wishes.areTokenIdsWanted,
    serviceTier: own.terms.serviceTier,
    areLogprobsWanted: asked.wishes.areLogprobsWanted,
    promptTokenIds: accepted.map((each) => each.promptTokenIds),
    echoes: accepted.map((each) => (asked.wishes.isEchoWanted ? echoOf(each, parts.generation) : '')),
    tokenBytes: parts.generation.tokenBytes,
  });
}

const echoOf = ({ promptText, promptTokenIds }: AcceptedRequest, generation: Generation): string =>
  promptText ?? Buffer.concat(promptTokenIds.map((id) => generation.tokenBytes(id))).toString('utf8');

/** All or none: where one cannot be submitted, those before it are ended with their rows. @throws RequestError */
async function submitAll(
  accepted: readonly AcceptedRequest[],
  asked: AskedAnswer,
  own: {
    readonly id: string;
    readonly arrivedAt: number;
    readonly exchange: Exchange;
    readonly terms: RequestTerms;
    readonly permit: Permit;
    readonly onSubmitted: () => void;
  },
  parts: EndpointParts,
): Promise<readonly AnswerRun[]> {
  const { fleet, generation, recorder, now } = parts;
  const { terms, permit } = own;
  const { tenant, program, serviceTier, objectives, cacheSalt } = terms;
  const runs: AnswerRun[] = [];
  try {
    accepted.forEach((each, index) => {
      const requestId = accepted.length === 1 ? own.id : `${own.id}-${index}`;
      const submittedAt = now();
      const stream = fleet.submit(
        {
          sequenceId: requestId,
          promptTokenIds: each.promptTokenIds,
          generatedTokenIds: [],
          sampling: each.sampling,
          maxTokens: each.maxTokens,
          stopTokenIds: each.stopTokenIds,
          tenant,
          program,
          serviceTier,
          objectives,
          ageLimits: ageLimitsLeft(terms, submittedAt - own.arrivedAt),
          cacheSalt,
        },
        now(),
      );
      own.onSubmitted();
      runs.push(
        new AnswerRun({
          stream,
          answer: generation.answerText(each),
          exchange: own.exchange,
          recorder,
          now,
          onFirstToken: () => permit.begun(index),
          facts: {
            arrivedAt: own.arrivedAt,
            submittedAt,
            requestId,
            endpoint: asked.endpoint,
            modelId: generation.modelId,
            terms,
            isStreamed: asked.wishes.isStreamed,
            promptTokenCount: each.promptTokenIds.length,
          },
        }),
      );
    });
  } catch (error) {
    await Promise.all(runs.map((run) => run.abandon()));
    if (error instanceof FleetError)
      throw unavailable('No worker can take the request now; please try again.');
    throw error;
  }
  return runs;
}

/** No worker of today could ever hold it: better said at once than after a wait. @throws RequestError 400 */
function assertCanFit(promptTokenCounts: readonly number[], workers: readonly WorkerView[]): void {
  if (workers.length === 0) return;
  const most = Math.max(
    ...workers.map(({ envelope: { kvBlockCount, kvBlockSize, maxModelLenTokens } }) =>
      Math.min(kvBlockCount * kvBlockSize, maxModelLenTokens),
    ),
  );
  const tooLong = promptTokenCounts.find((count) => count + 1 > most);
  if (tooLong === undefined) return;
  throw invalidRequest(
    'context_length_exceeded',
    null,
    `The prompt has ${tooLong} tokens and needs room for at least one more; the KV cache of this server's workers holds ${most}. Please shorten it.`,
  );
}
