/**
 * Which colour a thing has, on every page: a metric its series colour, a regime and a path one that follows from its
 * name. The only file that hands out colours; the values behind the names are in app/globals.css, for both themes.
 */
export type SeriesColour = 1 | 2 | 3 | 4 | 5 | 6;

export const colourOf = {
  outputTokens: 'var(--series-1)',
  inputTokens: 'var(--series-2)',
  ttft: 'var(--series-1)',
  itl: 'var(--series-3)',
  cost: 'var(--series-4)',
  sloAttainment: 'var(--series-5)',
} as const;

/** The same name always has the same colour; two names may share one, so that the name is always written too. */
export function colourOfName(name: string): string {
  let hash = 2166136261;
  for (const character of name) hash = Math.imul(hash ^ (character.codePointAt(0) ?? 0), 16777619) >>> 0;
  return `var(--series-${((hash >>> 8) % 6) + 1})`;
}
