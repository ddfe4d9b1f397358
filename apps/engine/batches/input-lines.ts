/**
 * An input file as its lines, read as a stream: bytes between line ends, without a byte order mark, a carriage return or
 * the empty ones. Holds one line at a time; a line above the limit is skipped without being kept. Judges nothing.
 */
import { createReadStream } from 'node:fs';

export interface InputLine {
  /** Counted from 0 over the lines that are not empty: the place of its result. */
  readonly index: number;
  /** Counted from 1 over all lines, for people. */
  readonly number: number;
  /** null where the line is longer than the limit. */
  readonly bytes: Buffer | null;
}

const NEWLINE = 0x0a;
const RETURN = 0x0d;
const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf]);
const CHUNK_BYTES = 256 * 1024;

/** @throws Error of Node's where the file cannot be read */
export async function* inputLines(path: string, maxLineBytes: number): AsyncGenerator<InputLine> {
  let pieces: Buffer[] = [];
  let keptBytes = 0;
  let isTooLong = false;
  let number = 0;
  let index = 0;

  /** A line's room beyond the limit is for what is cut off it: a mark, a carriage return. */
  const keep = (piece: Buffer): void => {
    if (isTooLong || piece.length === 0) return;
    keptBytes += piece.length;
    if (keptBytes > maxLineBytes + BYTE_ORDER_MARK.length + 1) {
      isTooLong = true;
      pieces = [];
    } else {
      pieces.push(piece);
    }
  };
  const take = (): InputLine | null => {
    number += 1;
    const whole = pieces.length === 1 ? (pieces[0] ?? Buffer.alloc(0)) : Buffer.concat(pieces);
    const bytes = isTooLong ? null : trimmed(whole, number === 1);
    const line = bytes !== null && bytes.length > maxLineBytes ? null : bytes;
    pieces = [];
    keptBytes = 0;
    isTooLong = false;
    if (line !== null && isBlank(line)) return null;
    index += 1;
    return { index: index - 1, number, bytes: line };
  };

  for await (const chunk of createReadStream(path, { highWaterMark: CHUNK_BYTES }) as AsyncIterable<Buffer>) {
    let from = 0;
    for (let at = chunk.indexOf(NEWLINE); at >= 0; at = chunk.indexOf(NEWLINE, from)) {
      keep(chunk.subarray(from, at));
      from = at + 1;
      const line = take();
      if (line !== null) yield line;
    }
    // A copy: what is left of a chunk must not hold the whole of it, and the next chunk's buffer may be the same.
    keep(Buffer.from(chunk.subarray(from)));
  }
  if (keptBytes > 0) {
    const line = take();
    if (line !== null) yield line;
  }
}

function trimmed(line: Buffer, isFirst: boolean): Buffer {
  const from = isFirst && line.subarray(0, 3).equals(BYTE_ORDER_MARK) ? BYTE_ORDER_MARK.length : 0;
  const to = line.at(-1) === RETURN ? line.length - 1 : line.length;
  return line.subarray(from, Math.max(from, to));
}

const isBlank = (line: Buffer): boolean =>
  line.every((byte) => byte === 0x20 || byte === 0x09 || byte === RETURN);
