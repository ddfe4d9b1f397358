import { mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { packedWeightsFile, tidyPackedWeights } from './packed-weights.ts';

const scratch = mkdtempSync(join(tmpdir(), 'variator-packed-'));
afterAll(() => rmSync(scratch, { recursive: true }));
const now = 1_800_000_000_000;

function put(name: string, size: number, ageMs: number): string {
  const file = join(scratch, name);
  writeFileSync(file, Buffer.alloc(size));
  utimesSync(file, (now - ageMs) / 1000, (now - ageMs) / 1000);
  return file;
}

test('what was used longest ago goes first, the file in use never, and abandoned parts after an hour', () => {
  const own = put('b-int8.panels', 600, 9e9);
  put('a-int8.panels', 300, 1000);
  put('c-int4.panels', 300, 2000);
  put('d-int8.panels', 50, 3000);
  put('a-int8.panels.17', 10, 4e6);
  put('a-int8.panels.18', 10, 1e6);
  put('notes.txt', 5000, 9e9);
  expect(tidyPackedWeights(scratch, own, now, 1000).sort()).toEqual(['a-int8.panels.17', 'c-int4.panels']);
  expect(readdirSync(scratch).sort()).toEqual([
    'a-int8.panels',
    'a-int8.panels.18',
    'b-int8.panels',
    'd-int8.panels',
    'notes.txt',
  ]);
  expect(tidyPackedWeights(scratch, own, now, 100).sort()).toEqual(['a-int8.panels', 'd-int8.panels']);
});

test('a folder that cannot be made keeps nothing and is no fault', () => {
  const blocked = join(put('a-file', 1, 0), 'folder');
  expect(packedWeightsFile(blocked, 'hash', 'int8')).toBeNull();
  expect(tidyPackedWeights(blocked, join(blocked, 'x.panels'), now)).toEqual([]);
  expect(packedWeightsFile(join(scratch, 'new'), 'hash', 'int8')).toBe(
    join(scratch, 'new', 'hash-int8.panels'),
  );
});
