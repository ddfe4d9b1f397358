/**
 * Text to token ids by the model's own tokenizer, and messages to prompt text by its template. Lives in a tokenizer
 * thread (tokenizer-pool.ts calls it by message); plain and synchronous, so that tests can call it directly.
 * Knows nothing of limits on tokens: accept-request.ts does.
 */
import { Tokenizer } from '@huggingface/tokenizers';
import type { LoadedTokenizer } from '@variator/kernels/model';
import {
  anyOf,
  type ChatMessage,
  ChatTemplate,
  type RenderedPrompt,
  TemplateError,
} from './chat-template.ts';

export interface PromptEncoderData {
  readonly tokenizer: LoadedTokenizer;
  readonly maxRenderedChars: number;
}

/** `null`: a client's own prompt, special tokens mean themselves and the model's start token is added. */
export type Guard = string | null;

export interface DecodedTokens {
  /** Special tokens included: they are what the client sent. */
  readonly text: string;
  /** As the vocabulary spells them. */
  readonly tokens: readonly string[];
}

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
  readonly lstrip: boolean;
  readonly rstrip: boolean;
}

export class PromptEncoder {
  readonly #tokenizer: Tokenizer;
  /** The same model and pre-tokenizer without special tokens: it reads `<|im_end|>` as nine or so ordinary tokens. */
  readonly #plain: Tokenizer;
  readonly #specials: ReadonlyMap<string, AddedToken>;
  readonly #template: ChatTemplate | null;
  readonly #startTokenId: number | null;

  constructor(data: PromptEncoderData) {
    const { tokenizerJson, tokenizerConfig, chatTemplate, bosTokenId, eosTokenIds } = data.tokenizer;
    this.#tokenizer = new Tokenizer(tokenizerJson, tokenizerConfig);
    const added = (tokenizerJson.added_tokens ?? []) as AddedToken[];
    this.#plain = new Tokenizer(
      {
        ...tokenizerJson,
        added_tokens: added.filter((token) => !token.special),
        model: { type: 'BPE', vocab: {}, merges: [] },
      },
      tokenizerConfig,
    );
    this.#plain.model = this.#tokenizer.model;
    this.#specials = new Map(added.filter((token) => token.special).map((token) => [token.content, token]));
    const textOf = (id: number | null | undefined): string =>
      (id === null || id === undefined ? undefined : this.#tokenizer.id_to_token(id)) ?? '';
    this.#template =
      chatTemplate === null
        ? null
        : new ChatTemplate(chatTemplate, {
            bosToken: textOf(bosTokenId),
            eosToken: textOf(eosTokenIds[0]),
            specials: [...this.#specials.keys()],
            maxRenderedChars: data.maxRenderedChars,
          });
    this.#startTokenId = tokenizerConfig.add_bos_token === true ? bosTokenId : null;
  }

  /** @throws TemplateError */
  render(messages: readonly ChatMessage[], isAnswerOpened = true): RenderedPrompt {
    if (this.#template === null) throw new TemplateError('this model has no chat template');
    return this.#template.render(messages, isAnswerOpened);
  }

  encode(text: string, guard: Guard): Int32Array {
    if (guard === null) return this.#encodePrompt(text);
    if (guard === '') return Int32Array.from(this.#ids(this.#tokenizer, text));
    return this.#encodeGuarded(text, guard);
  }

  decode(tokenIds: readonly number[]): DecodedTokens {
    const options = { skip_special_tokens: false, clean_up_tokenization_spaces: false };
    return {
      text: tokenIds.length === 0 ? '' : this.#tokenizer.decode([...tokenIds], options),
      tokens: tokenIds.map((id) => this.#tokenizer.id_to_token(id) ?? ''),
    };
  }

  #encodePrompt(text: string): Int32Array {
    const ids = text === '' ? [] : this.#tokenizer.encode(text).ids;
    if (this.#startTokenId !== null && ids[0] !== this.#startTokenId) ids.unshift(this.#startTokenId);
    return Int32Array.from(ids);
  }

  /** The template's special tokens become their ids; guarded ones are text. */
  #encodeGuarded(text: string, guard: string): Int32Array {
    const pattern = anyOf([...this.#specials.keys()], `(?!${guard})`);
    const sections = pattern === null ? [text] : text.split(pattern);
    const ids: number[] = [];
    sections.forEach((section, index) => {
      if (index % 2 === 1) {
        const special = this.#specials.get(section);
        if (special !== undefined) ids.push(special.id);
        return;
      }
      let words = section.replaceAll(guard, '');
      if (this.#specials.get(sections[index - 1] ?? '')?.rstrip === true) words = words.trimStart();
      if (this.#specials.get(sections[index + 1] ?? '')?.lstrip === true) words = words.trimEnd();
      for (const id of this.#ids(this.#plain, words)) ids.push(id);
    });
    return Int32Array.from(ids);
  }

  #ids(tokenizer: Tokenizer, text: string): number[] {
    return text === '' ? [] : tokenizer.encode(text, { add_special_tokens: false }).ids;
  }
}
