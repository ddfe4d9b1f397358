/**
 * Token ids for recorded requests, whose words nobody kept: as many as there were, and equal at the start as far as the
 * prefix cache found them equal. Used by replay.ts. Pure.
 */
import { FIRST_OWN_TOKEN_ID } from '@variator/scheduler/block-hashing';

interface PromptShape {
  readonly promptTokenCount: number;
  readonly cachedTokenCount: number;
  readonly completionTokenCount: number;
  readonly session: string;
}

/** What a request has in common with others. */
interface SharedStart {
  /** Of its first tokens. */
  tokenCount: number;
  /** Stretches of them that are answers to requests before: of generated tokens. From where, up to where; in order. */
  answers: readonly (readonly [start: number, end: number])[];
}

/** What every sequence generates on a virtual clock: an id that prompts have only where they repeat an answer. */
export const GENERATED_TOKEN_ID = 0;

/**
 * A prompt for each request, made when it is asked for by its place. A request shares its session's tokens as far as it or
 * any later one of the session found them cached, the answer of the one before among them where more than that one's prompt was
 * found; from there on its tokens are its own.
 */
export function promptsOf(requests: readonly PromptShape[]): (index: number) => number[] {
  const starts = sharedStarts(requests);
  return (index) => {
    const request = requests[index];
    const start = starts[index];
    if (request === undefined || start === undefined) throw new Error(`There is no request ${index}.`);
    const tokenIds = promptOf(request, index, start.tokenCount);
    for (const [from, to] of start.answers) {
      tokenIds.fill(GENERATED_TOKEN_ID, from, Math.min(to, start.tokenCount, tokenIds.length));
    }
    return tokenIds;
  };
}

/** `promptTokenCount` token ids: the session's up to `sharedTokenCount`, then the request's own. */
export function promptOf(
  { promptTokenCount, session }: Pick<PromptShape, 'promptTokenCount' | 'session'>,
  index: number,
  sharedTokenCount: number,
): number[] {
  const own = FIRST_OWN_TOKEN_ID + index;
  const shared = hashText(session);
  const tokenIds = new Array<number>(promptTokenCount).fill(own);
  const sharedEnd = Math.min(sharedTokenCount, promptTokenCount);
  for (let position = 0; position < sharedEnd; position += 1) tokenIds[position] = mix(shared, position);
  return tokenIds;
}

/**
 * What must be in the cache before the first request for these to find what they found: the start of every session whose
 * first request already hit, at most half the cache, later sessions first.
 */
export function warmingPrompts(requests: readonly PromptShape[], cacheTokenCount: number): number[][] {
  const first = new Map<string, number>();
  for (const request of requests) {
    if (!first.has(request.session)) first.set(request.session, request.cachedTokenCount);
  }
  const prompts: number[][] = [];
  let left = cacheTokenCount / 2;
  for (const [session, tokenCount] of [...first].reverse()) {
    if (tokenCount === 0 || tokenCount > left) continue;
    left -= tokenCount;
    const shared = hashText(session);
    // One token more than is shared: a cache never covers a whole prompt.
    prompts.push(Array.from({ length: tokenCount + 1 }, (_, position) => mix(shared, position)));
  }
  return prompts;
}

function sharedStarts(requests: readonly PromptShape[]): SharedStart[] {
  const mostFound = new Map<string, number>();
  const starts = requests.map((): SharedStart => ({ tokenCount: 0, answers: [] }));
  for (let index = requests.length - 1; index >= 0; index -= 1) {
    const request = requests[index];
    const start = starts[index];
    if (request === undefined || start === undefined) continue;
    // The most that it or a later one of its session found cached.
    start.tokenCount = Math.max(mostFound.get(request.session) ?? 0, request.cachedTokenCount);
    mostFound.set(request.session, start.tokenCount);
  }
  const before = new Map<string, { request: PromptShape; start: SharedStart }>();
  requests.forEach((request, index) => {
    const start = starts[index];
    if (start === undefined) return;
    const last = before.get(request.session);
    before.set(request.session, { request, start });
    if (last === undefined) return;
    const answerAt = last.request.promptTokenCount;
    start.answers = last.start.answers.filter(([, end]) => end <= answerAt);
    if (request.cachedTokenCount > answerAt) {
      start.answers = [...start.answers, [answerAt, answerAt + last.request.completionTokenCount]];
    }
  });
  return starts;
}

/** The token that a source of text, by its name, has in a place: from 1 to 2^29. */
export const tokenAt = (source: string, position: number): number => mix(hashText(source), position);

/** A token id from 1 to 2^29, spread by two rounds of a 32-bit finaliser. */
function mix(seed: number, position: number): number {
  let mixed = Math.imul(seed ^ Math.imul(position + 1, 0x85ebca6b), 0xc2b2ae35);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x2c1b3c6d);
  return 1 + ((mixed ^ (mixed >>> 13)) & 0x1fffffff);
}

function hashText(text: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  }
  return hash >>> 0;
}
