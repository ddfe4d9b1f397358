/**
 * How rows lie in a segment of the spool, and how they are read back: one row a line behind its checksum. Pure; called by
 * spool.ts. A line that was torn by a crash, or changed on the disk, is recognised and left out, never guessed at.
 *
 *   crc32(json) as 8 hex digits SP json LF
 */
import { crc32 } from 'node:zlib';

const CHECKSUM_CHARS = 8;

const checksum = (json: string | Buffer): string => crc32(json).toString(16).padStart(CHECKSUM_CHARS, '0');

/** @param json without line ends, as JSON.stringify makes it */
export const recordOf = (json: string): string => `${checksum(json)} ${json}\n`;

export interface ReadRecords {
  readonly rows: readonly object[];
  /** Lines that are not what was written: a torn tail, or damage. */
  readonly damagedCount: number;
}

export function readRecords(bytes: Buffer): ReadRecords {
  const rows: object[] = [];
  let damagedCount = 0;
  for (let from = 0; from < bytes.length; ) {
    const end = bytes.indexOf(0x0a, from);
    const row = end < 0 ? null : rowOf(bytes.subarray(from, end));
    if (row === null) damagedCount += 1;
    else rows.push(row);
    from = end < 0 ? bytes.length : end + 1;
  }
  return { rows, damagedCount };
}

function rowOf(line: Buffer): object | null {
  if (line.length <= CHECKSUM_CHARS + 1 || line[CHECKSUM_CHARS] !== 0x20) return null;
  const json = line.subarray(CHECKSUM_CHARS + 1);
  if (line.toString('latin1', 0, CHECKSUM_CHARS) !== checksum(json)) return null;
  // What bears its checksum was written by recordOf.
  return JSON.parse(json.toString('utf8')) as object;
}
