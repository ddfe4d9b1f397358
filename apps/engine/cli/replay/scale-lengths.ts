/**
 * Shrinks (or grows) what a trace asks for, so that a small machine can follow, and keeps the shape of what is shared:
 * borders are rounded from the start of the prompt, so prompts that share a prefix share the same share of it. Pure.
 */
import type { PlannedPrompt, PlannedTurn, PromptMessage, PromptPart } from './planned-traffic.ts';

export function scaleTurn(turn: PlannedTurn, scale: number): PlannedTurn {
  if (scale === 1) return turn;
  return {
    ...turn,
    prompt: scalePrompt(turn.prompt, scale),
    outputTokenCount: Math.max(1, Math.round(turn.outputTokenCount * scale)),
  };
}

function scalePrompt(prompt: PlannedPrompt, scale: number): PlannedPrompt {
  if (prompt.kind === 'parts') return { kind: 'parts', parts: scaleParts(prompt.parts, scale) };
  return {
    kind: 'messages',
    messages: prompt.messages.map(
      (message): PromptMessage => ({ ...message, text: cut(message.text, scale) }),
    ),
  };
}

/** As many tokens as the whole asks for, and at least one. */
function scaleParts(parts: readonly PromptPart[], scale: number): PromptPart[] {
  const borderAfter = stepper(scale);
  const scaled = parts.map((part) => ({ ...part, tokenCount: borderAfter(part.tokenCount) }));
  const [first] = scaled;
  const isEmpty = scaled.every(({ tokenCount }) => tokenCount === 0);
  return isEmpty && first ? [{ ...first, tokenCount: 1 }] : scaled.filter(({ tokenCount }) => tokenCount > 0);
}

/** How many units lie between the last border and the next, when each is rounded from the start. */
export function stepper(scale: number): (length: number) => number {
  let exact = 0;
  let border = 0;
  return (length) => {
    exact += length * scale;
    const before = border;
    border = Math.round(exact);
    return border - before;
  };
}

/** Real words: the start of the text, for a text cannot be compressed otherwise. Larger than recorded it cannot become. */
function cut(text: string, scale: number): string {
  if (scale > 1) return text;
  const kept = text.slice(0, Math.max(1, Math.round(text.length * scale)));
  // Half of a surrogate pair is no text.
  return /[\uD800-\uDBFF]$/.test(kept) ? kept.slice(0, -1) || text.slice(0, 2) : kept;
}
