/**
 * Token ids for recorded requests, whose words nobody kept: as many as there were, and equal at the start as far as the
 * prefix cache found them equal. Used by replay.ts. Pure.
 */
import { FIRST_OWN_TOKEN_ID } from '@variator/scheduler/block-hashing';

interface PromptShape {
  readonly promptTokenCount: number;
  readonly cachedTokenCount: number;
  readonly session: string;
}

/**
 * A prompt for each request, made when it is asked for by its place. A request shares its session's tokens as far as it or
 * any later one of the session found them cached; from there on its tokens are its own.
 */
export function promptsOf(requests: readonly PromptShape[]): (index: number) => number[] {
  const horizons = sharedTokenCounts(requests);
  return (index) => {
    const request = requests[index];
    if (request === undefined) throw new Error(`There is no request ${index}.`);
    return promptOf(request, index, horizons[index] ?? 0);
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

/** For each request, the most tokens that it or a later one of its session found cached. */
function sharedTokenCounts(requests: readonly PromptShape[]): number[] {
  const bySession = new Map<string, number>();
  const counts: number[] = new Array<number>(requests.length).fill(0);
  for (let index = requests.length - 1; index >= 0; index -= 1) {
    const request = requests[index];
    if (request === undefined) continue;
    const most = Math.max(bySession.get(request.session) ?? 0, request.cachedTokenCount);
    bySession.set(request.session, most);
    counts[index] = most;
  }
  return counts;
}

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
