/**
 * The lines of batches on the road of a request: the same parsing, accepting, submitting and row as online, and the same
 * error where one is refused, without a socket in between. Given to batches/ by main.ts through the server.
 */
import type { LineUsage } from '../batches/batch.ts';
import type { LineAnswer, LineRoad } from '../batches/line-road.ts';
import type { RequestError } from '../generation/request-error.ts';
import { type AskedAnswer, answerCountOf, answerLine, type EndpointParts } from './answer-endpoint.ts';
import { freshRequestId } from './answer-headers.ts';
import { askedChat, askedCompletion } from './asked-answers.ts';
import { asRequestError, errorBody, serverError } from './error-body.ts';
import { unsupported } from './parameters.ts';
import { readJson } from './read-json.ts';
import type { LineOwner } from './request-terms.ts';

/** custom_id, method, url and the braces around a body that could just be sent online. */
const ENVELOPE_BYTES = 4096;

export function batchLines(
  parts: EndpointParts,
  options: { readonly maxBodyBytes: number; readonly log: (line: string) => void },
): LineRoad {
  /** Of lines that are being answered. */
  let sequenceCount = 0;
  async function answered(asked: AskedAnswer, owner: LineOwner, signal: AbortSignal): Promise<object> {
    sequenceCount += answerCountOf(asked);
    try {
      return await answerLine(asked, owner, parts, signal);
    } finally {
      sequenceCount -= answerCountOf(asked);
    }
  }

  return {
    maxLineBytes: options.maxBodyBytes + ENVELOPE_BYTES,
    parseLine: readJson,
    servesModel: (model) => parts.servedModelNames.includes(model),
    insideCounts: () => ({ requests: parts.admission.insideCount - sequenceCount, lines: sequenceCount }),
    async answerLine({ endpoint, body, owner }, signal): Promise<LineAnswer> {
      const requestId = freshRequestId();
      try {
        const read = endpoint === '/v1/chat/completions' ? askedChat : askedCompletion;
        const asked = read(body, parts.generation);
        if (asked.wishes.isStreamed) {
          throw unsupported('stream', 'A line of a batch is answered whole; leave "stream" out.');
        }
        const whole = await answered(asked, owner, signal);
        return { isAnswered: true, status: 200, requestId, body: whole, usage: usageOf(whole) };
      } catch (error) {
        const known = asRequestError(error);
        if (known === null) {
          options.log(`line ${requestId} failed: ${error instanceof Error ? error.stack : error}`);
        }
        const refused: RequestError = known ?? serverError('The server failed to answer this request.');
        const { status, code, retryAfterMs } = refused;
        return { isAnswered: false, status, code, retryAfterMs, requestId, body: errorBody(refused) };
      }
    },
  };
}

function usageOf(whole: object): LineUsage {
  const { usage } = whole as {
    readonly usage: {
      readonly prompt_tokens: number;
      readonly completion_tokens: number;
      readonly prompt_tokens_details: { readonly cached_tokens: number };
    };
  };
  return {
    promptTokenCount: usage.prompt_tokens,
    cachedTokenCount: usage.prompt_tokens_details.cached_tokens,
    completionTokenCount: usage.completion_tokens,
  };
}
