/**
 * Reads an input file from end to end before any of its lines runs: what is wrong with it line by line, or how many lines
 * it has. A body is only looked at for its model; whatever else is wrong with it is that line's own error, in the words an
 * online request would get. Called by open-batches.ts; yields to other work as it goes.
 */
import { setImmediate as turn } from 'node:timers/promises';
import type { BatchEndpoint, InputFault } from './batch.ts';
import { inputLines } from './input-lines.ts';

/** What of the endpoint a file is checked against; implemented in http/. */
export interface LineRules {
  /** A longer line could not be sent online either. */
  readonly maxLineBytes: number;
  /** Bytes to a JSON value. @throws Error with a sentence */
  parseLine(bytes: Buffer): unknown;
  servesModel(model: string): boolean;
}

export interface ParsedLine {
  readonly customId: string;
  readonly model: string;
  readonly body: unknown;
}

export type InputVerdict =
  | { readonly isSound: true; readonly lineCount: number; readonly model: string }
  | { readonly isSound: false; readonly faults: readonly InputFault[] };

type LineFault = Omit<InputFault, 'line'>;

const MOST_FAULTS = 100;
const MOST_CUSTOM_ID_CHARS = 512;
/** Parsed between two turns of the event loop: about a millisecond's work. */
const BYTES_PER_TURN = 64 * 1024;
const keys = ['custom_id', 'method', 'url', 'body'];

export async function checkInput(
  path: string,
  endpoint: BatchEndpoint,
  maxLineCount: number,
  rules: LineRules,
  signal: AbortSignal,
): Promise<InputVerdict> {
  const faults: InputFault[] = [];
  const seenAt = new Map<string, number>();
  let lineCount = 0;
  let model = '';
  let bytesSinceTurn = 0;
  for await (const { number, bytes } of inputLines(path, rules.maxLineBytes)) {
    signal.throwIfAborted();
    if (faults.length === MOST_FAULTS) {
      faults.push(fileFault('too_many_errors', `Reading stopped after ${MOST_FAULTS} errors.`));
      break;
    }
    lineCount += 1;
    if (lineCount > maxLineCount) {
      faults.push(fileFault('too_many_tasks', `The file has more than ${maxLineCount} lines; split it.`));
      break;
    }
    const read = bytes === null ? tooLong(rules.maxLineBytes) : readLine(bytes, endpoint, rules);
    if ('code' in read) {
      faults.push({ ...read, line: number });
    } else {
      const first = seenAt.get(read.customId);
      if (first === undefined) seenAt.set(read.customId, number);
      else faults.push({ ...duplicate(read.customId, first), line: number });
      if (model === '') model = read.model;
    }
    bytesSinceTurn += bytes?.length ?? 0;
    if (bytesSinceTurn > BYTES_PER_TURN) {
      bytesSinceTurn = 0;
      await turn();
    }
  }
  if (lineCount === 0) faults.push(fileFault('empty_file', 'The file has no lines.'));
  return faults.length > 0 ? { isSound: false, faults } : { isSound: true, lineCount, model };
}

/** One line as a request, or what is wrong with it. */
export function readLine(bytes: Buffer, endpoint: BatchEndpoint, rules: LineRules): ParsedLine | LineFault {
  let line: unknown;
  try {
    line = rules.parseLine(bytes);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return { code: 'invalid_json_line', message: why, param: null };
  }
  if (!isObject(line)) return fault('invalid_json_line', null, 'The line is not a JSON object.');
  const stranger = Object.keys(line).find((key) => !keys.includes(key));
  if (stranger !== undefined) {
    const name = stranger.slice(0, 64);
    return fault('unsupported_parameter', name, `A line has no "${name}"; it has ${keys.join(', ')}.`);
  }
  const missing = keys.find((key) => line[key] === undefined || line[key] === null);
  if (missing !== undefined)
    return fault('missing_required_parameter', missing, `The line has no "${missing}".`);
  const { custom_id: customId, method, url, body } = line;
  if (typeof customId !== 'string' || customId === '' || customId.length > MOST_CUSTOM_ID_CHARS) {
    return fault(
      'invalid_custom_id',
      'custom_id',
      `"custom_id" must be a text of 1 to ${MOST_CUSTOM_ID_CHARS} characters.`,
    );
  }
  if (method !== 'POST') return fault('invalid_method', 'method', '"method" must be "POST".');
  if (url !== endpoint) {
    return fault('invalid_url', 'url', `"url" must be "${endpoint}", the endpoint of the batch.`);
  }
  if (!isObject(body)) return fault('invalid_type', 'body', '"body" must be a JSON object.');
  const { model } = body;
  if (typeof model !== 'string') {
    return fault('missing_required_parameter', 'body.model', 'The body names no "model".');
  }
  if (!rules.servesModel(model)) {
    return fault('model_not_found', 'body.model', `The model "${model.slice(0, 128)}" does not exist here.`);
  }
  return { customId, model, body };
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const fault = (code: string, param: string | null, message: string): LineFault => ({ code, message, param });

const fileFault = (code: string, message: string): InputFault => ({
  ...fault(code, null, message),
  line: null,
});

const tooLong = (maxLineBytes: number): LineFault =>
  fault('line_too_long', null, `The line is longer than ${maxLineBytes} bytes.`);

const duplicate = (customId: string, firstLine: number): LineFault =>
  fault(
    'duplicate_custom_id',
    'custom_id',
    `Line ${firstLine} has the "custom_id" "${customId.slice(0, 64)}" too.`,
  );
