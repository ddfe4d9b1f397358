/**
 * Takes one file out of a ZIP archive without holding either in memory, and says its SHA-256. Called by
 * model-download.ts. Reads stored and deflated members; refuses ZIP64, encryption and sizes other than expected.
 *
 *   | local headers and data ... | central directory | end of central directory |
 */
import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { PassThrough, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createInflateRaw } from 'node:zlib';

const END_MARK = 0x06054b50;
const ENTRY_MARK = 0x02014b50;
const LOCAL_MARK = 0x04034b50;
const END_BYTES = 22;
const ENTRY_BYTES = 46;
const LOCAL_BYTES = 30;
const MAX_COMMENT_BYTES = 65_535;
const MAX_DIRECTORY_BYTES = 4 << 20;
const STORED = 0;
const DEFLATED = 8;

interface Member {
  readonly method: number;
  readonly packedBytes: number;
  readonly headerAt: number;
}

/** Writes the member to `target`, which must not exist; it must unpack to exactly `byteCount` bytes. */
export async function extractMember(
  archive: string,
  name: string,
  target: string,
  byteCount: number,
): Promise<{ sha256: string }> {
  const handle = await open(archive, 'r');
  try {
    const member = findMember(await readDirectory(handle), name, byteCount);
    const local = await read(handle, member.headerAt, LOCAL_BYTES);
    if (local.readUInt32LE(0) !== LOCAL_MARK) throw new Error(`the archive is damaged at ${name}`);
    const dataAt = member.headerAt + LOCAL_BYTES + local.readUInt16LE(26) + local.readUInt16LE(28);

    const hash = createHash('sha256');
    let unpackedBytes = 0;
    const judge = new Transform({
      transform(chunk: Buffer, _encoding, done) {
        unpackedBytes += chunk.length;
        hash.update(chunk);
        done(unpackedBytes > byteCount ? new Error(`${name} unpacks to more than it claims`) : null, chunk);
      },
    });
    await pipeline(
      handle.createReadStream({ start: dataAt, end: dataAt + member.packedBytes - 1, autoClose: false }),
      member.method === STORED ? new PassThrough() : createInflateRaw(),
      judge,
      createWriteStream(target, { flags: 'wx' }),
    );
    if (unpackedBytes !== byteCount) {
      throw new Error(`${name} unpacks to ${unpackedBytes} bytes; ${byteCount} were expected`);
    }
    return { sha256: hash.digest('hex') };
  } finally {
    await handle.close();
  }
}

async function readDirectory(handle: FileHandle): Promise<Buffer> {
  const { size } = await handle.stat();
  const tailBytes = Math.min(size, END_BYTES + MAX_COMMENT_BYTES);
  const tail = await read(handle, size - tailBytes, tailBytes);
  let end = tailBytes - END_BYTES;
  while (end >= 0 && tail.readUInt32LE(end) !== END_MARK) end -= 1;
  if (end < 0) throw new Error('it is no ZIP archive, or it is cut short');
  const directoryBytes = tail.readUInt32LE(end + 12);
  const directoryAt = tail.readUInt32LE(end + 16);
  if (directoryBytes > MAX_DIRECTORY_BYTES || directoryAt + directoryBytes > size) {
    throw new Error('the archive has a directory that cannot be true');
  }
  return read(handle, directoryAt, directoryBytes);
}

function findMember(directory: Buffer, name: string, byteCount: number): Member {
  for (let at = 0; at + ENTRY_BYTES <= directory.length; ) {
    if (directory.readUInt32LE(at) !== ENTRY_MARK) throw new Error('the archive has a damaged directory');
    const nameEnd = at + ENTRY_BYTES + directory.readUInt16LE(at + 28);
    if (directory.toString('utf8', at + ENTRY_BYTES, nameEnd) === name) {
      const method = directory.readUInt16LE(at + 10);
      const isEncrypted = (directory.readUInt16LE(at + 8) & 1) === 1;
      if (isEncrypted || (method !== STORED && method !== DEFLATED)) {
        throw new Error(`${name} is packed in a way that is not read`);
      }
      if (directory.readUInt32LE(at + 24) !== byteCount) {
        throw new Error(
          `${name} claims ${directory.readUInt32LE(at + 24)} bytes; ${byteCount} were expected`,
        );
      }
      return {
        method,
        packedBytes: directory.readUInt32LE(at + 20),
        headerAt: directory.readUInt32LE(at + 42),
      };
    }
    at = nameEnd + directory.readUInt16LE(at + 30) + directory.readUInt16LE(at + 32);
  }
  throw new Error(`the archive holds no ${name}`);
}

async function read(handle: FileHandle, position: number, length: number): Promise<Buffer> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, position);
  if (bytesRead !== length) throw new Error('the archive is cut short');
  return buffer;
}
