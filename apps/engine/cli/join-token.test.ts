import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { joinToken } from './join-token.ts';

const dataDir = mkdtempSync(join(tmpdir(), 'variator-token-'));
afterAll(() => rmSync(dataDir, { recursive: true, force: true }));

test('a token is made once, for its owner alone, and kept; one that is given leaves no file', () => {
  const given = 'g'.repeat(32);
  expect(joinToken({ joinToken: given, dataDir })).toEqual({ token: given, file: null });
  const { token, file } = joinToken({ joinToken: null, dataDir });
  expect(token).toMatch(/^[\w-]{43}$/);
  expect(readFileSync(file ?? '', 'utf8')).toBe(token);
  expect(statSync(file ?? '').mode & 0o777).toBe(0o600);
  expect(joinToken({ joinToken: null, dataDir }).token).toBe(token);
});

test('a spoiled file is named', () => {
  writeFileSync(join(dataDir, 'join-token'), 'x');
  expect(() => joinToken({ joinToken: null, dataDir })).toThrow(/join-token holds no join token; remove it/);
});
