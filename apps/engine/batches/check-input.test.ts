import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { checkInput, type LineRules } from './check-input.ts';
import { inputLines } from './input-lines.ts';

const folder = mkdtempSync(join(tmpdir(), 'variator-input-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const file = (content: string | Buffer): string => {
  const path = join(folder, `${Math.random()}.jsonl`);
  writeFileSync(path, content);
  return path;
};

const read = async (
  content: string | Buffer,
  maxLineBytes = 100,
): Promise<[number, number, string | null][]> => {
  const lines: [number, number, string | null][] = [];
  for await (const { index, number, bytes } of inputLines(file(content), maxLineBytes)) {
    lines.push([index, number, bytes?.toString() ?? null]);
  }
  return lines;
};

describe('lines of an input file', () => {
  test('a byte order mark, carriage returns and empty lines are no part of them', async () => {
    expect(await read('\ufeffa\r\n\r\n \t\nb\n\nc')).toEqual([
      [0, 1, 'a'],
      [1, 4, 'b'],
      [2, 6, 'c'],
    ]);
  });

  test('a file without lines has none', async () => {
    expect(await read('')).toEqual([]);
    expect(await read('\n\r\n\ufeff')).toHaveLength(1);
    expect(await read('\ufeff')).toEqual([]);
  });

  test('a line above the limit is marked and the next one is whole', async () => {
    const long = 'x'.repeat(101);
    expect(await read(`${long}\n${'y'.repeat(100)}\r\n${long}`)).toEqual([
      [0, 1, null],
      [1, 2, 'y'.repeat(100)],
      [2, 3, null],
    ]);
  });

  test('lines that lie across the chunks of the file are whole', async () => {
    const lines = Array.from({ length: 3000 }, (_, index) => `${index} ${'é'.repeat(index % 700)}`);
    expect((await read(lines.join('\n'), 10_000)).map(([, , text]) => text)).toEqual(lines);
  });
});

const rules: LineRules = {
  maxLineBytes: 2000,
  parseLine: (bytes) => JSON.parse(bytes.toString()),
  servesModel: (model) => model === 'm',
};
const good = (customId: string, change: object = {}): string =>
  JSON.stringify({
    custom_id: customId,
    method: 'POST',
    url: '/v1/completions',
    body: { model: 'm' },
    ...change,
  });
const check = (content: string, maxLineCount = 10) =>
  checkInput(file(content), '/v1/completions', maxLineCount, rules, new AbortController().signal);

describe('the check of an input file', () => {
  test('counts the lines of a sound one and takes the model from them', async () => {
    expect(await check(`${good('a')}\n\n${good('b')}\n`)).toEqual({
      isSound: true,
      lineCount: 2,
      model: 'm',
    });
  });

  test.each<[string, string, string, string | null]>([
    ['a duplicate custom_id', good('a'), 'duplicate_custom_id', 'custom_id'],
    ['no custom_id', good('b', { custom_id: undefined }), 'missing_required_parameter', 'custom_id'],
    ['an empty custom_id', good(''), 'invalid_custom_id', 'custom_id'],
    ['a custom_id that is a number', good('b', { custom_id: 7 }), 'invalid_custom_id', 'custom_id'],
    ['a custom_id without end', good('b'.repeat(513)), 'invalid_custom_id', 'custom_id'],
    ['another method', good('b', { method: 'GET' }), 'invalid_method', 'method'],
    ['another endpoint', good('b', { url: '/v1/chat/completions' }), 'invalid_url', 'url'],
    ['a whole URL', good('b', { url: 'http://x/v1/completions' }), 'invalid_url', 'url'],
    ['no body', good('b', { body: null }), 'missing_required_parameter', 'body'],
    ['a body that is a list', good('b', { body: [] }), 'invalid_type', 'body'],
    ['no model', good('b', { body: {} }), 'missing_required_parameter', 'body.model'],
    ['an unknown model', good('b', { body: { model: 'gpt-5' } }), 'model_not_found', 'body.model'],
    ['a key of its own', good('b', { headers: {} }), 'unsupported_parameter', 'headers'],
    ['no JSON', '{"custom_id":', 'invalid_json_line', null],
    ['JSON that is no object', '[1]', 'invalid_json_line', null],
    ['too much', good('b', { body: { model: 'm', prompt: 'x'.repeat(2000) } }), 'line_too_long', null],
  ])('a line with %s is named with its number', async (_name, line, code, param) => {
    const verdict = await check(`${good('a')}\n\n${line}\n${good('c')}`);
    expect(verdict).toMatchObject({ isSound: false, faults: [{ code, param, line: 3 }] });
    expect(verdict.isSound ? [] : verdict.faults).toHaveLength(1);
  });

  test('an empty file, too many lines, and faults without end', async () => {
    expect(await check('\n')).toMatchObject({ faults: [{ code: 'empty_file', line: null }] });
    const eleven = Array.from({ length: 11 }, (_, index) => good(`${index}`)).join('\n');
    expect(await check(eleven)).toMatchObject({ faults: [{ code: 'too_many_tasks', line: null }] });
    const verdict = await check('x\n'.repeat(5000), 50_000);
    expect(verdict.isSound ? [] : verdict.faults).toHaveLength(101);
    expect(verdict.isSound ? null : verdict.faults.at(-1)?.code).toBe('too_many_errors');
  });
});
