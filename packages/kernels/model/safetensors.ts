/**
 * Reads the headers of safetensors files: one `model.safetensors`, or shards named by `model.safetensors.index.json`.
 * Called by hugging-face.ts. Touches no weight; believes no offset it has not checked against the file's size.
 *
 *   | u64 header length | JSON header | tensor bytes, without holes |
 */
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { asModelError, parseFields, parseJsonObject, readJsonIfThere, sizeIfThere } from './json-file.ts';
import { ModelError } from './model-error.ts';
import type { StoredTensor } from './tensor-table.ts';

/** Thousands of tensors take less than one; the format itself would allow 100 MB. */
const MAX_HEADER_BYTES = 32 * 1024 * 1024;
const MAX_SHARDS = 1_000;

const DTYPE_BYTES: Readonly<Record<string, number>> = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U64: 8,
  U32: 4,
  U16: 2,
  U8: 1,
  BOOL: 1,
};

const entrySchema = z.object({
  dtype: z.string(),
  shape: z.array(z.int().min(0)).max(8),
  data_offsets: z.tuple([z.int().min(0), z.int().min(0)]),
});

const indexSchema = z.object({ weight_map: z.record(z.string(), z.string()) });

/** Every tensor of the folder's checkpoint. */
export async function readSafetensorsFolder(folder: string): Promise<StoredTensor[]> {
  const single = join(folder, 'model.safetensors');
  const tensors = await readSafetensors(single);
  if (tensors !== null) return tensors;

  const indexFile = join(folder, 'model.safetensors.index.json');
  const index = await readJsonIfThere(indexFile);
  if (index === null) {
    throw new ModelError(folder, 'it holds neither model.safetensors nor model.safetensors.index.json.');
  }
  const { weight_map: shardOf } = parseFields(indexFile, indexSchema, index);
  const shards = [...new Set(Object.values(shardOf))].sort();
  if (shards.length === 0 || shards.length > MAX_SHARDS) {
    throw new ModelError(indexFile, `it names ${shards.length} files; 1 to ${MAX_SHARDS} are read.`);
  }
  const all: StoredTensor[] = [];
  for (const shard of shards) {
    if (!/^[\w.-]+\.safetensors$/.test(shard)) {
      throw new ModelError(indexFile, `"${shard}" is not a file name in this folder.`);
    }
    const inShard = await readSafetensors(join(folder, shard));
    if (inShard === null) throw new ModelError(join(folder, shard), 'this file is missing.');
    const names = new Set(inShard.map((tensor) => tensor.name));
    const absent = Object.keys(shardOf).find((name) => shardOf[name] === shard && !names.has(name));
    if (absent !== undefined) throw new ModelError(join(folder, shard), `the tensor ${absent} is missing.`);
    all.push(...inShard);
  }
  return all;
}

/** The tensors of one file, in the order they lie there, or null where there is no such file. */
export async function readSafetensors(file: string): Promise<StoredTensor[] | null> {
  if ((await sizeIfThere(file)) === null) return null;
  let handle: FileHandle;
  try {
    handle = await open(file, 'r');
  } catch (error) {
    throw asModelError(file, error);
  }
  try {
    const { size } = await handle.stat();
    const headerBytes = Number((await readExactly(handle, file, 0, 8, size)).readBigUInt64LE());
    if (headerBytes > MAX_HEADER_BYTES) {
      throw new ModelError(
        file,
        `the header claims ${headerBytes} bytes; ${MAX_HEADER_BYTES} are the limit.`,
      );
    }
    const text = (await readExactly(handle, file, 8, headerBytes, size)).toString('utf8');
    return layOut(file, parseJsonObject(file, text), 8 + headerBytes, size);
  } catch (error) {
    throw asModelError(file, error);
  } finally {
    await handle.close();
  }
}

function layOut(
  file: string,
  header: Record<string, unknown>,
  dataStart: number,
  fileSize: number,
): StoredTensor[] {
  const tensors = Object.entries(header)
    .filter(([name]) => name !== '__metadata__')
    .map(([name, value]): StoredTensor => {
      const entry = parseFields(file, z.object({ [name]: entrySchema }), { [name]: value })[name];
      if (entry === undefined) throw new ModelError(file, `the tensor ${name} is missing.`);
      const [begin, end] = entry.data_offsets;
      const elementBytes = DTYPE_BYTES[entry.dtype];
      if (elementBytes === undefined) {
        throw new ModelError(file, `the tensor ${name} is of type ${entry.dtype}, which is not read.`);
      }
      const byteLength = entry.shape.reduce((product, size) => product * size, elementBytes);
      if (end - begin !== byteLength) {
        throw new ModelError(
          file,
          `the tensor ${name} of shape [${entry.shape}] needs ${byteLength} bytes and is given ${end - begin}.`,
        );
      }
      return {
        name,
        file,
        offset: dataStart + begin,
        byteLength,
        dtype: entry.dtype,
        dimensions: entry.shape,
      };
    })
    .sort((a, b) => a.offset - b.offset || a.byteLength - b.byteLength);

  let expected = dataStart;
  for (const { name, offset, byteLength } of tensors) {
    if (offset < expected) throw new ModelError(file, `the tensor ${name} overlaps the one before it.`);
    if (offset > expected) throw new ModelError(file, `there is a hole before the tensor ${name}.`);
    expected = offset + byteLength;
    if (expected > fileSize) {
      throw new ModelError(file, `the tensor ${name} ends at byte ${expected}; the file at ${fileSize}.`);
    }
  }
  if (expected !== fileSize) {
    throw new ModelError(file, `${fileSize - expected} bytes follow the last tensor.`);
  }
  return tensors;
}

async function readExactly(
  handle: FileHandle,
  file: string,
  position: number,
  length: number,
  fileSize: number,
): Promise<Buffer> {
  if (position + length > fileSize) {
    throw new ModelError(
      file,
      `it ends at byte ${fileSize}, inside its header of ${position + length} bytes.`,
    );
  }
  const buffer = Buffer.alloc(length);
  let filled = 0;
  while (filled < length) {
    const { bytesRead } = await handle.read(buffer, filled, length - filled, position + filled);
    if (bytesRead === 0) throw new ModelError(file, 'it became shorter while it was read.');
    filled += bytesRead;
  }
  return buffer;
}
