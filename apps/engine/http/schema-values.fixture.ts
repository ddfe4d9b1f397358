/**
 * Values from a JSON schema as the OpenAPI document holds them, for property tests: mostly what the schema allows, at its
 * borders where it has some, and now and then what it does not. Knows the keywords that zod writes, no others.
 */
import fc from 'fast-check';

interface JsonSchema {
  readonly type?: string | readonly string[];
  readonly anyOf?: readonly JsonSchema[];
  readonly oneOf?: readonly JsonSchema[];
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: boolean | JsonSchema;
  readonly items?: boolean | JsonSchema;
  readonly prefixItems?: readonly JsonSchema[];
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly exclusiveMinimum?: number;
}

const anything = fc.jsonValue({ maxDepth: 3 });

/** One value in `rareness` is of any kind at all. */
export const schemaValues = (schema: object, rareness = 12): fc.Arbitrary<unknown> =>
  fc.oneof(
    { arbitrary: valid(schema as JsonSchema, rareness), weight: rareness },
    { arbitrary: anything, weight: 1 },
  );

function valid(schema: JsonSchema, rareness: number): fc.Arbitrary<unknown> {
  const either = schema.anyOf ?? schema.oneOf;
  if (either !== undefined) return fc.oneof(...either.map((each) => valid(each, rareness)));
  if (schema.const !== undefined) return fc.constant(schema.const);
  if (schema.enum !== undefined) return fc.constantFrom(...schema.enum);
  const kinds = typeof schema.type === 'string' ? [schema.type] : (schema.type ?? []);
  if (kinds.length === 0) return anything;
  return fc.oneof(...kinds.map((kind) => ofKind(kind, schema, rareness)));
}

function ofKind(kind: string, schema: JsonSchema, rareness: number): fc.Arbitrary<unknown> {
  switch (kind) {
    case 'null':
      return fc.constant(null);
    case 'boolean':
      return fc.boolean();
    case 'string':
      return fc.string({
        unit: 'grapheme',
        minLength: schema.minLength ?? 0,
        maxLength: Math.min(schema.maxLength ?? 40, 40),
      });
    case 'integer':
    case 'number':
      return numbers(kind, schema);
    case 'array':
      return lists(schema, rareness);
    default:
      return objects(schema, rareness);
  }
}

function numbers(kind: string, { minimum, exclusiveMinimum, maximum }: JsonSchema): fc.Arbitrary<number> {
  const min = Math.max(-1e6, minimum ?? exclusiveMinimum ?? -1e6);
  const max = Math.max(min, Math.min(1e6, maximum ?? 1e6));
  const borders = [min, max, minimum === undefined ? 0 : min - 1, max + 1];
  // Answers are as long as they are asked to be; most should be short.
  const inside =
    kind === 'integer'
      ? fc.integer({ min, max: Math.min(max, min + 8) })
      : fc.double({ min, max, noNaN: true });
  return fc.oneof({ arbitrary: inside, weight: 6 }, { arbitrary: fc.constantFrom(...borders), weight: 1 });
}

function lists(schema: JsonSchema, rareness: number): fc.Arbitrary<unknown> {
  if (schema.prefixItems !== undefined) {
    return fc.tuple(...schema.prefixItems.map((each) => valid(each, rareness)));
  }
  const items = typeof schema.items === 'object' ? schemaValues(schema.items, rareness * 4) : anything;
  const minLength = schema.minItems ?? 0;
  return fc.array(items, { minLength, maxLength: Math.max(minLength, Math.min(schema.maxItems ?? 6, 6)) });
}

function objects(schema: JsonSchema, rareness: number): fc.Arbitrary<unknown> {
  const known = Object.entries(schema.properties ?? {});
  const required = new Set(schema.required ?? []);
  const must = Object.fromEntries(
    known.filter(([key]) => required.has(key)).map(([key, each]) => [key, schemaValues(each, rareness * 8)]),
  );
  const may = known.filter(([key]) => !required.has(key));
  const picked = fc
    .subarray(may, { maxLength: Math.min(may.length, 6) })
    .chain((pairs) =>
      fc.record(Object.fromEntries(pairs.map(([key, each]) => [key, schemaValues(each, rareness * 8)]))),
    );
  const stranger =
    typeof schema.additionalProperties === 'object'
      ? fc.dictionary(fc.string({ maxLength: 20 }), valid(schema.additionalProperties, rareness), {
          maxKeys: 4,
        })
      : fc.constant({});
  return fc
    .tuple(fc.record(must), picked, stranger)
    .map(([own, more, others]) => ({ ...others, ...more, ...own }));
}
