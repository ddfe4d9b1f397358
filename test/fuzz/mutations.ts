/**
 * Seeded edits of what was right once: of JSON values, and of bytes whatever they mean. Used by the walks over request
 * bodies (mutated-bodies.ts) and model files (mutated-models.ts).
 */
export type Random = () => number;

const oddValues: readonly unknown[] = [
  null,
  true,
  false,
  0,
  -0,
  -1,
  1,
  2,
  1e21,
  -1e308,
  5e-324,
  2 ** 31,
  2 ** 53,
  2 ** 53 + 2,
  0.1,
  '',
  ' ',
  '\0',
  '\ud800',
  'NaN',
  'x'.repeat(5000),
  '<|im_start|>',
  '<|endoftext|>',
  '👩‍👩‍👧',
  '\u202e',
  '{{ 7 * 7 }}',
  '../../etc/passwd',
  [],
  [[]],
  {},
  { a: { b: { c: {} } } },
  [null],
  [1, 'a'],
  Array.from({ length: 200 }, () => 1),
  { __proto__: null, constructor: 1 },
];
const oddTexts: readonly string[] = [
  '1e999',
  '-1e999',
  'NaN',
  'Infinity',
  '-',
  '01',
  '1.',
  '"\\u',
  '"\\ud800"',
  '{"__proto__":{}}',
  '[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[',
  '"a":1,"a":2',
  '\u0000',
  '/*',
  '//',
  ',',
  ':',
  '}',
  '{',
  ']',
  '"',
];

export const pick = <T>(list: readonly T[], random: Random): T =>
  list[Math.floor(random() * list.length)] as T;

/** One edit somewhere in the value. `keys` are put where they were not; what stands under `keptKey` mostly stays. */
export function edited(
  value: unknown,
  random: Random,
  keys: readonly string[],
  keptKey: string | null = null,
): unknown {
  const entries = typeof value === 'object' && value !== null ? Object.entries(value) : [];
  if (entries.length === 0 || random() < 0.1) return pick(oddValues, random);
  const [key, inner] = pick(entries, random);
  const kind = random();
  const copy: Record<string, unknown> | unknown[] = Array.isArray(value)
    ? [...value]
    : { ...(value as object) };
  const slots = copy as Record<string, unknown>;
  if (key === keptKey && kind < 0.9) return value;
  if (kind < 0.35) slots[key] = edited(inner, random, keys, keptKey);
  else if (kind < 0.65) slots[key] = pick(oddValues, random);
  else if (kind < 0.75) delete slots[key];
  else if (Array.isArray(copy)) copy.push(inner, pick(oddValues, random));
  else slots[pick(keys, random)] = random() < 0.5 ? inner : pick(oddValues, random);
  return copy;
}

/** Bytes cut, left out, doubled, put in or flipped at one place. */
export function damaged(bytes: Uint8Array, random: Random): Uint8Array {
  const at = Math.floor(random() * bytes.length);
  const until = Math.min(bytes.length, at + Math.floor(random() * 12));
  const head = bytes.subarray(0, at);
  switch (Math.floor(random() * 5)) {
    case 0:
      return head;
    case 1:
      return joined(head, bytes.subarray(until));
    case 2:
      return joined(bytes.subarray(0, until), bytes.subarray(at));
    case 3:
      return joined(head, new TextEncoder().encode(pick(oddTexts, random)), bytes.subarray(until));
    default: {
      const flipped = Uint8Array.from(bytes);
      flipped[at] = (flipped[at] ?? 0) ^ (1 << Math.floor(random() * 8));
      return flipped;
    }
  }
}

const joined = (...parts: readonly Uint8Array[]): Uint8Array => Uint8Array.from(Buffer.concat(parts));
