/**
 * Log-probabilities in OpenAI's two shapes. Pure; called by answer-shapes.ts. Values are the model's own, before penalties,
 * biases, temperature and truncation, as vLLM's default gives them. A token inside a character shows U+FFFD as its text and
 * its own bytes beside it.
 */
import type { TokenLogprobs } from '@variator/scheduler/sequence';

export interface ScoredToken {
  readonly tokenId: number;
  /** null where none were asked for. */
  readonly logprobs: TokenLogprobs | null;
}

export type TokenBytes = (tokenId: number) => Uint8Array;

/** JSON knows no infinity; a token that the model rules out gets vLLM's number for it. */
const LEAST_LOGPROB = -9999;

const finite = (logprob: number): number => Math.max(LEAST_LOGPROB, logprob);
const textOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('utf8');

/** `choices[].logprobs` of /v1/chat/completions. */
export function chatLogprobs(tokens: readonly ScoredToken[], tokenBytes: TokenBytes): object {
  const entry = (tokenId: number, logprob: number) => {
    const bytes = tokenBytes(tokenId);
    return { token: textOf(bytes), logprob: finite(logprob), bytes: [...bytes] };
  };
  return {
    content: tokens.flatMap(({ tokenId, logprobs }) =>
      logprobs === null
        ? []
        : [
            {
              ...entry(tokenId, logprobs.logprob),
              top_logprobs: logprobs.top.map(([topId, logprob]) => entry(topId, logprob)),
            },
          ],
    ),
    refusal: null,
  };
}

/** `choices[].logprobs` of /v1/completions. @param offset characters of the answer before these tokens */
export function completionLogprobs(
  tokens: readonly ScoredToken[],
  offset: number,
  tokenBytes: TokenBytes,
): { readonly body: object; readonly nextOffset: number } {
  const texts = tokens.map(({ tokenId }) => textOf(tokenBytes(tokenId)));
  let nextOffset = offset;
  const offsets = texts.map((text) => {
    const at = nextOffset;
    nextOffset += text.length;
    return at;
  });
  return {
    body: {
      tokens: texts,
      token_logprobs: tokens.map(({ logprobs }) => (logprobs === null ? null : finite(logprobs.logprob))),
      top_logprobs: tokens.map(({ logprobs }) =>
        Object.fromEntries(
          // The likeliest last, so that it wins where two tokens have one text.
          [...(logprobs?.top ?? [])]
            .reverse()
            .map(([topId, logprob]) => [textOf(tokenBytes(topId)), finite(logprob)]),
        ),
      ),
      text_offset: offsets,
    },
    nextOffset,
  };
}
