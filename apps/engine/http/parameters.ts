/**
 * Every parameter of OpenAI's endpoints (and vLLM's additions) that we know, in three tables: honoured (in the bodies'
 * own files), without effect on the output, and accepted only at a value that changes nothing. Whatever is in none of
 * them is a 400 that names it: better than an answer that silently ignores what was asked. null means absent.
 */
import { z } from 'zod';
import { invalidRequest, type RequestError } from '../generation/request-error.ts';

const MAX_LIST_LENGTH = 4096;
/** Answers to one prompt. */
export const MAX_CHOICES = 16;
const MAX_BIASES = 1024;
/** Likeliest tokens beside a token's own log-probability. */
export const MAX_TOP_LOGPROBS = 20;
/** Their readers bound them by what the model can take. */
const longLists: readonly string[] = ['prompt', 'tokens'];
const hasLoneSurrogate = /\p{Surrogate}/u;

/** Text as the tokenizer can take it: no NUL, no half of a surrogate pair. */
export const text = z
  .string()
  .refine((value) => !value.includes('\0') && !hasLoneSurrogate.test(value), {
    error: 'contains a NUL character or half of a surrogate pair',
  })
  .meta({ pattern: '^[^\\u0000]*$' });

const label = text.max(512);

/** Accepted and checked for their type; they change nothing about the tokens. */
const withoutEffect = {
  user: label,
  metadata: z
    .record(z.string().max(64), label)
    .refine((value) => Object.keys(value).length <= 16, { error: 'has more than 16 entries' }),
  store: z.boolean(),
  service_tier: z.enum(['auto', 'default', 'flex', 'priority'], {
    error: 'expected one of "auto", "default", "flex" and "priority"',
  }),
  prompt_cache_key: label,
  prompt_cache_retention: z.enum(['in_memory', '24h']),
  safety_identifier: label,
  parallel_tool_calls: z.boolean(),
  request_id: label,
};

/** Not supported yet, except at the value that means "off"; the words are for the error. */
const onlyNeutral: Readonly<Record<string, readonly [schema: z.ZodType, words: string]>> = {
  best_of: [z.literal(1), '1'],
  echo: [z.literal(false), 'false'],
  suffix: [z.literal(''), '""'],
  length_penalty: [z.literal(1), '1'],
  top_logprobs: [z.literal(0), '0'],
  prompt_logprobs: [z.literal(0), '0'],
  response_format: [z.strictObject({ type: z.literal('text') }), '{"type":"text"}'],
  modalities: [z.tuple([z.literal('text')]), '["text"]'],
  tools: [z.tuple([]), '[]'],
  tool_choice: [z.enum(['none', 'auto']), '"none"'],
  functions: [z.tuple([]), '[]'],
  function_call: [z.enum(['none', 'auto']), '"none"'],
  reasoning_effort: [z.literal('none'), '"none"'],
  verbosity: [z.literal('medium'), '"medium"'],
  bad_words: [z.tuple([]), '[]'],
  include_stop_str_in_output: [z.literal(false), 'false'],
  skip_special_tokens: [z.literal(true), 'true'],
  spaces_between_special_tokens: [z.literal(true), 'true'],
  add_generation_prompt: [z.literal(true), 'true'],
  continue_final_message: [z.literal(false), 'false'],
  use_beam_search: [z.literal(false), 'false'],
  priority: [z.literal(0), '0'],
};

/** Known, with no value that would change nothing but null. */
const onlyNull: readonly string[] = [
  'audio',
  'prediction',
  'web_search_options',
  'moderation',
  'prompt_cache_options',
  'chat_template',
  'chat_template_kwargs',
  'documents',
  'structured_outputs',
  'cache_salt',
  'truncate_prompt_tokens',
  'allowed_token_ids',
];

/** What both endpoints honour. */
export const settings = {
  model: text.min(1),
  temperature: z.number().min(0).max(2),
  top_p: z.number().gt(0).max(1),
  top_k: z.int().min(-1).max(1_000_000),
  seed: z.int(),
  stop: z.union([text.min(1).max(256), z.array(text.min(1).max(256)).max(4)], {
    error: 'expected a string, or a list of at most 4 strings, of 1 to 256 characters without NUL',
  }),
  max_tokens: z.int().min(1),
  min_tokens: z.int().min(0),
  min_p: z.number().min(0).max(1),
  presence_penalty: z.number().min(-2).max(2),
  frequency_penalty: z.number().min(-2).max(2),
  repetition_penalty: z.number().min(0.01).max(100),
  logit_bias: z
    .record(
      z.string().regex(/^\d{1,9}$/, { error: 'has a key that is no token id' }),
      z.number().min(-100).max(100),
    )
    .refine((biases) => Object.keys(biases).length <= MAX_BIASES, {
      error: `has more than ${MAX_BIASES} entries`,
    }),
  stop_token_ids: z.array(z.int().min(0).max(999_999_999)).max(64),
  n: z.int().min(1).max(MAX_CHOICES),
  ignore_eos: z.boolean(),
  stream: z.boolean(),
  stream_options: z.strictObject({
    include_usage: z.boolean().nullish(),
    include_obfuscation: z.boolean().nullish(),
  }),
  return_token_ids: z.boolean(),
};

/**
 * Checks a body against what its endpoint honours and the tables above; keys that are null are gone from the result.
 * @throws RequestError that names the first parameter at fault
 */
export function parseParameters<Shape extends z.ZodRawShape>(
  shape: Shape,
  body: unknown,
): z.infer<z.ZodObject<Shape>> {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw invalidRequest('invalid_type', null, 'The request body must be a JSON object.');
  }
  const honoured: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(body)) {
    if (!longLists.includes(key)) refuseLongLists(value, key);
  }
  for (const [key, value] of Object.entries(body)) {
    if (Object.hasOwn(shape, key)) {
      if (value !== null) honoured[key] = value;
    } else if (Object.hasOwn(withoutEffect, key)) {
      if (value !== null) honoured[key] = value;
    } else {
      refuseUnlessNeutral(key, value);
    }
  }
  const parsed = schemaOf(shape).safeParse(honoured);
  if (!parsed.success) throw refusal(parsed.error, honoured);
  return parsed.data as z.infer<z.ZodObject<Shape>>;
}

/** All that parseParameters takes with this shape, as one schema: null is absent, every other key is refused. */
export function bodySchema(shape: z.ZodRawShape): z.ZodType {
  const neutral = Object.fromEntries(Object.entries(onlyNeutral).map(([key, [schema]]) => [key, schema]));
  const known: z.ZodRawShape = {
    ...Object.fromEntries(onlyNull.map((key) => [key, z.null().optional()])),
    ...partial(neutral),
    ...partial(withoutEffect),
    ...shape,
  };
  return z.strictObject(
    Object.fromEntries(
      Object.entries(known).map(([key, schema]) => [
        key,
        schema instanceof z.ZodOptional ? schema.nullable() : schema,
      ]),
    ),
  );
}

/**
 * For routes whose parameters are theirs alone: all that the schema knows and nothing else.
 * @throws RequestError that names the first parameter at fault
 */
export function parseStrictly<Schema extends z.ZodType>(schema: Schema, asked: unknown): z.infer<Schema> {
  if (typeof asked !== 'object' || asked === null || Array.isArray(asked)) {
    throw invalidRequest('invalid_type', null, 'The request body must be a JSON object.');
  }
  for (const [key, value] of Object.entries(asked)) refuseLongLists(value, key);
  const parsed = schema.safeParse(asked);
  if (!parsed.success) throw refusal(parsed.error, asked as Record<string, unknown>);
  return parsed.data;
}

/** Before any schema sees it: a schema collects a fault for every wrong element. */
function refuseLongLists(value: unknown, key: string): void {
  if (typeof value !== 'object' || value === null) return;
  if (Array.isArray(value) && value.length > MAX_LIST_LENGTH) {
    throw invalidRequest(
      'invalid_value',
      key.slice(0, 64),
      `A list has more than ${MAX_LIST_LENGTH} elements.`,
    );
  }
  for (const inner of Object.values(value)) refuseLongLists(inner, key);
}

function refuseUnlessNeutral(key: string, value: unknown): void {
  const neutral = Object.hasOwn(onlyNeutral, key) ? onlyNeutral[key] : undefined;
  if (neutral === undefined) {
    if (value === null && onlyNull.includes(key)) return;
    throw unsupported(key, `The parameter "${key.slice(0, 64)}" is not supported.`);
  }
  const [schema, words] = neutral;
  if (value === null || schema.safeParse(value).success) return;
  throw unsupported(key, `"${key}" is not supported yet; leave it out or send ${words}.`);
}

/** By the endpoint's shape: a schema compiles itself when it first parses, which must not happen for every request. */
const schemas = new WeakMap<z.ZodRawShape, z.ZodType>();

function schemaOf(shape: z.ZodRawShape): z.ZodType {
  let schema = schemas.get(shape);
  if (schema === undefined) {
    schema = z.object({ ...partial(withoutEffect), ...shape });
    schemas.set(shape, schema);
  }
  return schema;
}

/** Every schema of a table made optional. */
export function partial<Table extends Record<string, z.ZodType>>(
  table: Table,
): { [Key in keyof Table]: z.ZodOptional<Table[Key]> } {
  const entries = Object.entries(table).map(([key, schema]) => [key, schema.optional()]);
  return Object.fromEntries(entries) as { [Key in keyof Table]: z.ZodOptional<Table[Key]> };
}

export function unsupported(param: string, message: string): RequestError {
  return invalidRequest('unsupported_parameter', param.slice(0, 64), message);
}

function refusal(error: z.ZodError, body: Record<string, unknown>): RequestError {
  const issue = error.issues.find((candidate) => candidate.code === 'unrecognized_keys') ?? error.issues[0];
  const path = [...(issue?.path ?? [])];
  if (issue?.code === 'unrecognized_keys') {
    const param = paramOf([...path, issue.keys[0] ?? '']);
    return unsupported(param, `The parameter "${param}" is not supported.`);
  }
  const param = paramOf(path);
  if (path.length === 1 && !Object.hasOwn(body, String(path[0]))) {
    return invalidRequest('missing_required_parameter', param, `The parameter "${param}" is required.`);
  }
  const fault = (issue?.message ?? 'invalid').replace(/^Invalid (input|option): /, '');
  const isType = issue?.code === 'invalid_type' || issue?.code === 'invalid_union';
  return invalidRequest(isType ? 'invalid_type' : 'invalid_value', param, `Invalid "${param}": ${fault}.`);
}

const paramOf = (path: readonly PropertyKey[]): string =>
  path
    .map((part, index) =>
      typeof part === 'number' ? `[${part}]` : `${index === 0 ? '' : '.'}${String(part)}`,
    )
    .join('')
    .slice(0, 128);
