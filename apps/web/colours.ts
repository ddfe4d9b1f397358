/**
 * Which colour a thing has, on every page: a metric its series colour, a regime and a path one that follows from its
 * name. The only file that hands out colours; the values behind the names are in app/globals.css, for both themes.
 */
export const colourOf = {
  outputTokens: 'var(--series-1)',
  inputTokens: 'var(--series-2)',
  ttft: 'var(--series-1)',
  itl: 'var(--series-3)',
  cost: 'var(--series-4)',
  sloAttainment: 'var(--series-5)',
  decodeStep: 'var(--series-1)',
  prefillStep: 'var(--series-2)',
} as const;

const COLOUR_COUNT = 6;
const taken = new Map<string, number>();

/**
 * The colour that a name starts from follows from the name, so that it is the same on every page and day; only a name
 * that would share it with another in sight moves on to the next free one. Beyond six names they are shared, so that
 * the name is always written too.
 */
export function colourOfName(name: string): string {
  if (name === '') return 'var(--muted)';
  let colour = taken.get(name);
  if (colour === undefined) {
    colour = hashOf(name) % COLOUR_COUNT;
    const used = new Set(taken.values());
    while (used.size < COLOUR_COUNT && used.has(colour)) colour = (colour + 1) % COLOUR_COUNT;
    if (used.size < COLOUR_COUNT) taken.set(name, colour);
  }
  return `var(--series-${colour + 1})`;
}

/** A regime that comes again has the colour it had. What is only suspected takes none of the six from what is known. */
export const colourOfRegime = ({
  name,
  isConfirmed,
}: {
  readonly name: string;
  readonly isConfirmed: boolean;
}): string => (isConfirmed ? colourOfName(name) : 'var(--muted)');

function hashOf(name: string): number {
  let hash = 2166136261;
  for (const character of name) hash = Math.imul(hash ^ (character.codePointAt(0) ?? 0), 16777619) >>> 0;
  return hash >>> 8;
}
