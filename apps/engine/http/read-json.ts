/**
 * Bytes of a request body to a JSON value, with everything refused that JSON.parse lets through: bad UTF-8, deep nesting,
 * floods of keys, keys given twice, `__proto__`. Called by server.ts for every body; the scan comes before the parse,
 * because a deep value already harms whoever walks it.
 */
import { invalidRequest, type RequestError } from '../generation/request-error.ts';

const MAX_DEPTH = 32;
const MAX_KEY_COUNT = 10_000;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;

const malformed = (fault: string): RequestError =>
  invalidRequest('invalid_json', null, `The request body is not valid JSON: ${fault}.`);

/** @throws RequestError */
export function readJson(body: Buffer): unknown {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(body);
  } catch {
    throw malformed('it is not UTF-8');
  }
  refuseBombs(text);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw malformed(error instanceof Error ? error.message.slice(0, 120) : 'it cannot be parsed');
  }
}

function refuseBombs(text: string): void {
  const keysByDepth: Set<string>[] = [];
  let depth = 0;
  let keyCount = 0;
  let lastString = '';
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) {
      const start = at;
      for (at += 1; at < text.length && text.charCodeAt(at) !== QUOTE; at += 1) {
        if (text.charCodeAt(at) === BACKSLASH) at += 1;
      }
      lastString = text.slice(start, at + 1);
    } else if (code === 0x7b || code === 0x5b) {
      depth += 1;
      if (depth > MAX_DEPTH) throw malformed(`it nests deeper than ${MAX_DEPTH} levels`);
      keysByDepth[depth] = new Set();
    } else if (code === 0x7d || code === 0x5d) {
      depth -= 1;
    } else if (code === COLON) {
      keyCount += 1;
      if (keyCount > MAX_KEY_COUNT) throw malformed(`it has more than ${MAX_KEY_COUNT} keys`);
      refuseKey(lastString, keysByDepth[depth]);
    }
  }
}

function refuseKey(quoted: string, seen: Set<string> | undefined): void {
  let key = quoted;
  try {
    key = String(JSON.parse(quoted));
  } catch {
    throw malformed('a key is not a string');
  }
  if (key === '__proto__') throw malformed('"__proto__" is not a key');
  if (seen?.has(key)) throw malformed(`the key "${key.slice(0, 64)}" is given twice`);
  seen?.add(key);
}
