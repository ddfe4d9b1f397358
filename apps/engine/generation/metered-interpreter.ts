/**
 * Runs a compiled chat template with a meter: what every expression yields is charged against an allowance that grows with
 * the input. A template is the model's code. The time limit of its thread ends a loop, but no limit of a thread holds
 * memory: one allocation too large for V8 ends the whole process, open streams with it. So nothing large is made at all.
 * Called by chat-template.ts; knows nothing of messages or tokens.
 */
import { Environment, Interpreter, parse, tokenize } from '@huggingface/jinja';

export type Program = ReturnType<typeof parse>;
type Node = Parameters<Interpreter['evaluate']>[0];
type Value = ReturnType<Interpreter['evaluate']>;

/** In characters; what is no text is charged as so many. A chat needs about ten times its length. */
const FREE_ALLOWANCE = 1 << 26;
const ALLOWANCE_PER_INPUT_CHAR = 32;
const STEP_CHARGE = 16;
const ITEM_CHARGE = 32;
/** As in Jinja's own sandbox. */
const MAX_RANGE = 100_000;
/** Expressions within expressions, blocks and macros. Real templates reach about a hundred. */
const MAX_CALL_DEPTH = 1000;
/** Tool schemas are about fifteen deep. */
const MAX_DEPTH = 32;
/** What they yield may be as long as their operand times an argument. */
const MULTIPLYING = new Set(['join', 'replace', 'indent', 'tojson']);
/** They yield what was charged when it was made. */
const REFERENCES = new Set(['Identifier', 'MemberExpression']);

class MeterError extends Error {}

/** @throws Error with the place where the source does not compile */
export function compileTemplate(source: string): Program {
  return parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true }));
}

/** @throws Error when the template raises, fails, or makes too much */
export function runTemplate(
  program: Program,
  context: Readonly<Record<string, unknown>>,
  inputChars: number,
): string {
  const environment = new Environment();
  const globals = { false: false, true: true, none: null, False: false, True: true, None: null };
  const functions = {
    raise_exception: raise,
    range,
    strftime_now: (format: string) => timeText(new Date(), format),
  };
  for (const [name, value] of Object.entries({ ...globals, ...functions, ...context })) {
    environment.set(name, value);
  }
  const allowance = FREE_ALLOWANCE + ALLOWANCE_PER_INPUT_CHAR * inputChars;
  try {
    return String(new MeteredInterpreter(environment, allowance).run(program).value);
  } catch (error) {
    // V8's own, of a full stack or a text beyond its longest: true, and of no use to a client.
    if (error instanceof RangeError) throw new MeterError('it calls itself, or makes a text, without end');
    throw error;
  }
}

/** The two largest things that an operation which multiplies them was given so far. */
interface Operands {
  largest: number;
  second: number;
}

class MeteredInterpreter extends Interpreter {
  #left: number;
  readonly #sizes = new WeakMap<object, number>();
  /** Of the innermost expression; null where its operands are not multiplied. */
  #operands: Operands | null = null;
  #callDepth = 0;
  /** What the innermost member expression was looked up in. */
  #lastSize = 0;

  constructor(environment: Environment, allowance: number) {
    super(environment);
    this.#left = allowance;
  }

  override evaluate(node: Node, environment: Environment): Value {
    const outer = this.#operands;
    this.#operands = isMultiplying(node) ? { largest: 1, second: 1 } : null;
    this.#callDepth += 1;
    if (this.#callDepth > MAX_CALL_DEPTH) throw new MeterError('it calls itself without end');
    let value: Value;
    try {
      value = super.evaluate(node, environment);
    } finally {
      this.#operands = outer;
      this.#callDepth -= 1;
    }
    const isMethod = value?.type === 'FunctionValue' && node?.type === 'MemberExpression';
    // A method stands for the text it is of.
    const size = isMethod ? this.#lastSize : this.#sizeOf(value, 0);
    this.#charge(STEP_CHARGE + (REFERENCES.has(node?.type ?? '') ? 0 : size));
    if (outer !== null)
      this.#multiply(outer, value?.type === 'IntegerValue' ? Math.abs(Number(value.value)) : size);
    this.#lastSize = size;
    return value;
  }

  #charge(amount: number): void {
    this.#left -= amount;
    if (!(this.#left >= 0)) throw new MeterError('it makes more text than any prompt needs');
  }

  /** Before the operation itself: its operands are known, what it yields does not exist yet. */
  #multiply(operands: Operands, size: number): void {
    operands.second = Math.max(operands.second, Math.min(size, operands.largest));
    operands.largest = Math.max(operands.largest, size);
    if (operands.largest * operands.second > this.#left) {
      throw new MeterError('it makes a text longer than any prompt');
    }
  }

  /** Of a text its length; of a list or mapping all that is in it, however often, as it is written out. */
  #sizeOf(value: Value | undefined, depth: number): number {
    if (value === undefined) return 0;
    if (value.type === 'StringValue') return (value.value as string).length;
    const inner: unknown = value.value;
    if (typeof inner !== 'object' || inner === null) return ITEM_CHARGE;
    const known = this.#sizes.get(inner);
    if (known !== undefined) return known;
    if (value.type === 'NamespaceValue' && depth > 0) {
      throw new MeterError('a namespace stands inside of another value');
    }
    if (depth >= MAX_DEPTH) throw new MeterError(`its values are nested more than ${MAX_DEPTH} deep`);
    let size = ITEM_CHARGE;
    const items = Array.isArray(inner) ? inner : inner instanceof Map ? inner.entries() : [];
    for (const item of items) {
      const [key, member] = Array.isArray(item) ? (item as [string, Value]) : ['', item as Value];
      size += ITEM_CHARGE + key.length + this.#sizeOf(member, depth + 1);
    }
    // A namespace changes after it was made; all other values stay what they are.
    if (value.type === 'NamespaceValue') return size;
    this.#sizes.set(inner, size);
    return size;
  }
}

function isMultiplying(node: Node): boolean {
  if (node === undefined) return false;
  const { type, filter, callee } = node as {
    type: string;
    filter?: { callee?: { value?: string } };
    callee?: { type?: string };
  };
  if (type === 'CallExpression') return callee?.type === 'MemberExpression';
  const isFilter = type === 'FilterExpression' || type === 'FilterStatement';
  return isFilter && MULTIPLYING.has(filter?.callee?.value ?? '');
}

function raise(message: unknown): never {
  throw new Error(String(message));
}

function range(start: number, stop?: number, step = 1): number[] {
  if (step === 0) throw new Error('range() needs a step that is not zero');
  const [from, until] = stop === undefined ? [0, start] : [start, stop];
  const length = Math.max(0, Math.ceil((until - from) / step));
  if (!(length <= MAX_RANGE)) throw new MeterError(`range() has no more than ${MAX_RANGE} numbers`);
  return Array.from({ length }, (_, index) => from + index * step);
}

/** What chat templates ask of strftime: the date of today. */
function timeText(date: Date, format: string): string {
  const month = (style: 'long' | 'short') => new Intl.DateTimeFormat('en', { month: style }).format(date);
  const two = (value: number) => String(value).padStart(2, '0');
  const texts: Readonly<Record<string, () => string>> = {
    '%Y': () => String(date.getFullYear()),
    '%m': () => two(date.getMonth() + 1),
    '%d': () => two(date.getDate()),
    '%b': () => month('short'),
    '%B': () => month('long'),
    '%H': () => two(date.getHours()),
    '%M': () => two(date.getMinutes()),
    '%%': () => '%',
  };
  return format.replace(/%[YmdbBHM%]/g, (token) => texts[token]?.() ?? token);
}
