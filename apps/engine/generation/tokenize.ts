/**
 * What a prompt or messages are to the model, and what tokens are as text: /tokenize and /detokenize. Called through
 * generation.ts; the same pool and the same template as a request that generates, so that the counts agree.
 */
import { type AcceptContext, refuseTextThatCannotFit, tokenizing } from './accept-request.ts';
import type { ChatMessage } from './chat-template.ts';
import { invalidRequest } from './request-error.ts';

export type AskedTokens = {
  /** How the vocabulary spells each token. */
  readonly areStringsWanted: boolean;
} & (
  | {
      readonly prompt: string;
      /** The model's start token, where it has one. */
      readonly areSpecialsAdded: boolean;
    }
  | {
      readonly messages: readonly ChatMessage[];
      /** Whether the template opens the assistant's answer, as it does for a request. */
      readonly isAnswerOpened: boolean;
    }
);

export interface TokenizedText {
  readonly tokenIds: readonly number[];
  /** null where they were not wanted. */
  readonly tokens: readonly string[] | null;
}

/** @throws RequestError */
export async function tokenize(asked: AskedTokens, context: AcceptContext): Promise<TokenizedText> {
  const { pool } = context;
  const isChat = 'messages' in asked;
  const param = isChat ? 'messages' : 'prompt';
  let text: string;
  let guard: string | null;
  if (isChat) {
    if (context.tokenizer.chatTemplate === null) {
      throw invalidRequest(
        'chat_template_missing',
        'messages',
        'This model has no chat template; send "prompt" in place of "messages".',
      );
    }
    ({ text, guard } = await tokenizing(param, () => pool.render(asked.messages, asked.isAnswerOpened)));
  } else {
    text = asked.prompt;
    guard = asked.areSpecialsAdded ? null : '';
  }
  refuseTextThatCannotFit(text, param, context);
  const tokenIds = await tokenizing(param, () => pool.encode(text, guard));
  const tokens = asked.areStringsWanted
    ? (await tokenizing(param, () => pool.decode(tokenIds))).tokens
    : null;
  return { tokenIds, tokens };
}

/** @throws RequestError */
export async function detokenize(tokenIds: readonly number[], context: AcceptContext): Promise<string> {
  const { vocabularySize } = context.limits;
  const stranger = tokenIds.find((id) => id >= vocabularySize);
  if (stranger !== undefined) {
    throw invalidRequest(
      'invalid_token_id',
      'tokens',
      `Token id ${stranger} is outside the vocabulary; ids go from 0 to ${vocabularySize - 1}.`,
    );
  }
  return (await tokenizing('tokens', () => context.pool.decode(tokenIds))).text;
}
