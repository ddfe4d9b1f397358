/**
 * The lines of a text file, read in pieces and handed on one by one: what all trace readers start from. Bounded: a line
 * longer than MAX_LINE_BYTES is counted and skipped, however long it is.
 */
import { createReadStream, statSync } from 'node:fs';
import { basename } from 'node:path';
import type { TraceFaults } from './planned-traffic.ts';

const MAX_LINE_BYTES = 16 * 1024 * 1024;
const NEWLINE = 10;

export interface TraceLine {
  readonly text: string;
  /** For people: file and line. */
  readonly place: string;
}

export class LineFile {
  readonly #path: string;
  readonly #faults: TraceFaults;
  readonly #byteCount: number;
  #readByteCount = 0;

  constructor(path: string, faults: TraceFaults) {
    this.#path = path;
    this.#faults = faults;
    this.#byteCount = statSync(path).size;
  }

  readShare(): number {
    return this.#byteCount === 0 ? 1 : this.#readByteCount / this.#byteCount;
  }

  /** Without empty lines. */
  async *lines(): AsyncGenerator<TraceLine> {
    let pieces: Buffer[] = [];
    let pieceBytes = 0;
    let isSkipping = false;
    let number = 0;
    const place = () => `${basename(this.#path)}:${number}`;
    const take = (): TraceLine | null => {
      number += 1;
      const text = Buffer.concat(pieces).toString('utf8').trim();
      pieces = [];
      pieceBytes = 0;
      if (!isSkipping) return text === '' ? null : { text, place: place() };
      isSkipping = false;
      this.#faults.add(`a line over ${MAX_LINE_BYTES} bytes`, place());
      return null;
    };
    for await (const data of createReadStream(this.#path) as AsyncIterable<Buffer>) {
      this.#readByteCount += data.length;
      let from = 0;
      for (let at = data.indexOf(NEWLINE); at >= 0; at = data.indexOf(NEWLINE, from)) {
        if (!isSkipping) pieces.push(data.subarray(from, at));
        from = at + 1;
        const line = take();
        if (line) yield line;
      }
      if (isSkipping) continue;
      pieces.push(data.subarray(from));
      pieceBytes += data.length - from;
      if (pieceBytes <= MAX_LINE_BYTES) continue;
      isSkipping = true;
      pieces = [];
      pieceBytes = 0;
    }
    if (pieceBytes > 0 || isSkipping) {
      const line = take();
      if (line) yield line;
    }
  }
}
