/** Writes GGUF files for tests, right ones and lying ones: what a plan says is written as it says. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

export type Value =
  | number
  | boolean
  | string
  | string[]
  | number[]
  | { readonly float: number }
  | { readonly floats: readonly number[] }
  /** Of the signed type; llama.cpp wants it for token types. */
  | { readonly integers: readonly number[] };
export interface Tensor {
  readonly name: string;
  /** Innermost first, as in the file. */
  readonly dimensions: number[];
  readonly type: number;
  readonly byteLength: number;
  readonly offset?: number;
  readonly data?: Buffer;
}
export interface Plan {
  version: number;
  readonly metadata: Map<string, Value>;
  tensors: Tensor[];
  tensorCount?: number | bigint;
  pairCount?: number | bigint;
}

const u32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
const i32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return bytes;
};
const u64 = (value: number | bigint) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};
export const f32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return bytes;
};
const text = (value: string) => Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)]);

function value(of: Value): Buffer {
  if (typeof of === 'string') return Buffer.concat([u32(8), text(of)]);
  if (typeof of === 'number') return Buffer.concat([u32(4), u32(of)]);
  if (typeof of === 'boolean') return Buffer.concat([u32(7), Buffer.from([of ? 1 : 0])]);
  if ('floats' in of) return Buffer.concat([u32(9), u32(6), u64(of.floats.length), ...of.floats.map(f32)]);
  if ('integers' in of)
    return Buffer.concat([u32(9), u32(5), u64(of.integers.length), ...of.integers.map(i32)]);
  if (!Array.isArray(of)) return Buffer.concat([u32(6), f32(of.float)]);
  const isText = typeof of[0] === 'string';
  const items = of.map((item) => (typeof item === 'string' ? text(item) : u32(item)));
  return Buffer.concat([u32(9), u32(isText ? 8 : 4), u64(of.length), ...items]);
}

/** @returns the file's path */
export function writeGguf(folder: string, name: string, plan: Plan): string {
  const file = join(folder, `${name.replaceAll(/\W/g, '-')}.gguf`);
  writeFileSync(file, Buffer.concat(Object.values(ggufBytes(plan))));
  return file;
}

/** Header and tensor bytes; the header is padded to where they begin. */
export function ggufBytes(plan: Plan): { header: Buffer; body: Buffer } {
  const { placed, end } = placedTensors(plan);
  const body = Buffer.alloc(end, 7);
  for (const { data, offset } of placed) data?.copy(body, offset);
  return { header: ggufHeader(plan), body };
}

/** What stands before the tensors' bytes, padded to where they begin; each of them begins at a multiple of 32. */
export function ggufHeader(plan: Plan): Buffer {
  const { placed } = placedTensors(plan);
  const head = Buffer.concat([
    Buffer.from('GGUF'),
    u32(plan.version),
    u64(plan.tensorCount ?? placed.length),
    u64(plan.pairCount ?? plan.metadata.size),
    ...[...plan.metadata].map(([key, of]) => Buffer.concat([text(key), value(of)])),
    ...placed.map((tensor) =>
      Buffer.concat([
        text(tensor.name),
        u32(tensor.dimensions.length),
        ...tensor.dimensions.map(u64),
        u32(tensor.type),
        u64(tensor.offset),
      ]),
    ),
  ]);
  return Buffer.concat([head, Buffer.alloc((32 - (head.length % 32)) % 32)]);
}

function placedTensors(plan: Plan) {
  let end = 0;
  const placed = plan.tensors.map((tensor) => {
    const offset = tensor.offset ?? end;
    end = Math.ceil((offset + tensor.byteLength) / 32) * 32;
    return { ...tensor, offset };
  });
  return { placed, end };
}
