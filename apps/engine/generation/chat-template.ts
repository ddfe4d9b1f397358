/**
 * A model's chat template, compiled once: messages in, prompt text out. Runs inside the tokenizer thread, because a
 * template is the model's code and may be slow. It guards special tokens that a client typed as plain text, so that
 * control tokens come from the template alone (CVE-2026-44222 is what happens otherwise). Encodes nothing.
 */
import { compileTemplate, type Program, runTemplate } from './metered-interpreter.ts';

export interface ChatMessage {
  readonly role: 'system' | 'user' | 'assistant';
  readonly content: string;
  readonly name?: string;
}

export interface RenderedPrompt {
  readonly text: string;
  /** The character that follows every character of a special token a client typed; '' where none was typed. */
  readonly guard: string;
}

/** The template refused the messages or could not render them. */
export class TemplateError extends Error {
  override readonly name = 'TemplateError';
}

const MAX_TEMPLATE_CHARS = 256 * 1024;
/** Unicode's noncharacters: never assigned, so never meant by a client. */
const NONCHARACTERS = Array.from({ length: 32 }, (_, index) => String.fromCharCode(0xfdd0 + index));

export class ChatTemplate {
  readonly #program: Program;
  readonly #context: Readonly<Record<string, unknown>>;
  readonly #specials: readonly string[];
  readonly #maxRenderedChars: number;

  /** @throws TemplateError when the source is too large or does not compile */
  constructor(
    source: string,
    options: {
      readonly bosToken: string;
      readonly eosToken: string;
      readonly specials: readonly string[];
      readonly maxRenderedChars: number;
    },
  ) {
    if (source.length > MAX_TEMPLATE_CHARS) {
      throw new TemplateError(
        `the chat template has ${source.length} characters, over ${MAX_TEMPLATE_CHARS}`,
      );
    }
    try {
      this.#program = compileTemplate(source);
    } catch (error) {
      throw new TemplateError(`the chat template does not compile: ${messageOf(error)}`);
    }
    this.#context = {
      bos_token: options.bosToken,
      eos_token: options.eosToken,
      tools: null,
      documents: null,
    };
    this.#specials = options.specials;
    this.#maxRenderedChars = options.maxRenderedChars;
  }

  /** @throws TemplateError when the template raises, fails, or yields too much */
  render(messages: readonly ChatMessage[], isAnswerOpened = true): RenderedPrompt {
    const guarded = guardSpecials(messages, this.#specials);
    let text: string;
    try {
      const inputChars = guarded.messages.reduce(
        (sum, { content, name }) => sum + content.length + (name?.length ?? 0),
        0,
      );
      const context = { ...this.#context, add_generation_prompt: isAnswerOpened, messages: guarded.messages };
      text = runTemplate(this.#program, context, inputChars);
    } catch (error) {
      throw new TemplateError(messageOf(error));
    }
    if (text.length > this.#maxRenderedChars) {
      throw new TemplateError(`the rendered prompt has ${text.length} characters, over the limit`);
    }
    return { text, guard: guarded.guard };
  }
}

/** Matches any of the literal strings, the longest first; null where there are none. */
export function anyOf(literals: readonly string[], suffix = ''): RegExp | null {
  if (literals.length === 0) return null;
  const longestFirst = [...literals].sort((a, b) => b.length - a.length);
  const escaped = longestFirst.map((literal) => literal.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(`(${escaped.join('|')})${suffix}`, 'gu');
}

function guardSpecials(
  messages: readonly ChatMessage[],
  specials: readonly string[],
): { messages: readonly ChatMessage[]; guard: string } {
  const pattern = anyOf(specials);
  const texts = messages.flatMap((message) => [message.content, message.name ?? '']);
  if (pattern === null || !texts.some((text) => text.search(pattern) >= 0)) return { messages, guard: '' };
  const guard = NONCHARACTERS.find((candidate) => !texts.some((text) => text.includes(candidate)));
  if (guard === undefined) {
    throw new TemplateError('messages use every Unicode noncharacter beside special tokens');
  }
  // Behind every character, not once: the rest of one special token may be the start of another.
  const guardText = (text: string): string =>
    text.replace(pattern, (special) => Array.from(special, (char) => char + guard).join(''));
  return {
    guard,
    messages: messages.map((message) => ({
      ...message,
      content: guardText(message.content),
      ...(message.name === undefined ? {} : { name: guardText(message.name) }),
    })),
  };
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
