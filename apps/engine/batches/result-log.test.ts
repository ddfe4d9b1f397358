import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test, vi } from 'vitest';
import { type LineResult, ResultLog } from './result-log.ts';

const folder = mkdtempSync(join(tmpdir(), 'variator-results-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
let count = 0;
const newPath = (): string => {
  count += 1;
  return join(folder, `batch_${count}`);
};

const result = (index: number, json = `{"line":${index}}`, isAnswered = true): LineResult => ({
  index,
  isAnswered,
  usage: { promptTokenCount: 10, cachedTokenCount: 4, completionTokenCount: index },
  json: Buffer.from(json),
});
const inOrder = async (log: ResultLog): Promise<(string | null)[]> => {
  const found: (string | null)[] = [];
  for await (const each of log.inOrder()) found.push(each === null ? null : each.json.toString());
  return found;
};

describe('the results of a batch', () => {
  test('come in the order of their lines, however they were appended, with counts and usage', async () => {
    const log = await ResultLog.open(newPath(), 5);
    await Promise.all([
      log.append(result(3)),
      log.append(result(0)),
      log.append(result(2, '{"e":1}', false)),
    ]);
    expect(await inOrder(log)).toEqual(['{"line":0}', null, '{"e":1}', '{"line":3}', null]);
    expect(log.counts()).toEqual({ total: 5, completed: 2, failed: 1 });
    expect(log.usage()).toEqual({ promptTokenCount: 30, cachedTokenCount: 12, completionTokenCount: 5 });
    expect([0, 1, 2, 3, 4].map((index) => log.has(index))).toEqual([true, false, true, true, false]);
    await log.close();
  });

  test('outlive the process, and a second result for a line does not count', async () => {
    const path = newPath();
    const first = await ResultLog.open(path, 3);
    await first.append(result(1, '{"first":"ünï"}'));
    await first.close();
    const second = await ResultLog.open(path, 3);
    expect(second.has(1)).toBe(true);
    await second.append(result(1, '{"second":1}'));
    await second.append(result(0));
    expect(await inOrder(second)).toEqual(['{"line":0}', '{"first":"ünï"}', null]);
    expect(second.counts().completed).toBe(2);
    await second.close();
    const third = await ResultLog.open(path, 3);
    expect(await inOrder(third)).toEqual(['{"line":0}', '{"first":"ünï"}', null]);
    await third.close();
  });

  test('are whole after a tear at any byte: what was whole counts, the rest runs again', async () => {
    const path = newPath();
    const log = await ResultLog.open(path, 4);
    const ends: number[] = [];
    for (const index of [2, 0, 1]) {
      await log.append(result(index));
      ends.push(statSync(path).size);
    }
    await log.close();
    const whole = readFileSync(path);
    for (let bytes = 0; bytes <= whole.length; bytes += 1) {
      writeFileSync(path, whole.subarray(0, bytes));
      const torn = await ResultLog.open(path, 4);
      // A record that lacks nothing but its line end is whole.
      const wholeCount = ends.filter((end) => bytes >= end - 1).length;
      expect(torn.counts().completed, `torn at ${bytes}`).toBe(wholeCount);
      await torn.append(result(3));
      expect((await inOrder(torn)).filter((each) => each !== null)).toHaveLength(wholeCount + 1);
      await torn.close();
      const again = await ResultLog.open(path, 4);
      expect(again.counts().completed).toBe(wholeCount + 1);
      await again.close();
    }
  });

  test('end before the first damaged byte: zeros, flipped bits, a line number that cannot be', async () => {
    const path = newPath();
    const log = await ResultLog.open(path, 2);
    await log.append(result(0));
    const end = statSync(path).size;
    await log.append(result(1));
    await log.close();
    const whole = readFileSync(path);
    for (const damage of [Buffer.alloc(40), Buffer.from(whole.subarray(end).map((byte) => byte ^ 1))]) {
      writeFileSync(path, Buffer.concat([whole.subarray(0, end), damage]));
      const opened = await ResultLog.open(path, 2);
      expect(opened.counts().completed).toBe(1);
      expect(statSync(path).size).toBe(end);
      await opened.close();
    }
    writeFileSync(path, whole);
    const shorter = await ResultLog.open(path, 1);
    expect(shorter.counts()).toEqual({ total: 1, completed: 1, failed: 0 });
    await shorter.close();
  });

  test('a thousand appended at once are grouped and all there, long ones among them', async () => {
    const path = newPath();
    const log = await ResultLog.open(path, 1000);
    const json = (index: number) =>
      JSON.stringify({ index, text: 'ü'.repeat(index % 97 === 0 ? 300_000 : 20) });
    await Promise.all(
      Array.from({ length: 1000 }, (_, index) => log.append(result(999 - index, json(999 - index)))),
    );
    await log.close();
    const again = await ResultLog.open(path, 1000);
    expect(await inOrder(again)).toEqual(Array.from({ length: 1000 }, (_, index) => json(index)));
    await again.close();
  });

  test('what is written behind its back is an error, never a wrong answer', async () => {
    const path = newPath();
    const log = await ResultLog.open(path, 2);
    await log.append(result(0));
    await log.append(result(1));
    truncateSync(path, 5);
    appendFileSync(path, 'x'.repeat(200));
    await expect(inOrder(log)).rejects.toThrow('has changed');
    await log.close();
  });

  test.each(['write', 'datasync'] as const)(
    'count only what the disk took: each %s fails once, at every place in turn',
    async (call) => {
      // The world's call, not ours: the same that the kernel would fail.
      const handle = await open(newPath(), 'w');
      const prototype = Object.getPrototypeOf(handle) as typeof handle;
      await handle.close();
      for (let failing = 0; failing < 4; failing += 1) {
        const path = newPath();
        const log = await ResultLog.open(path, 4);
        for (let index = 0; index < 4; index += 1) {
          if (index === failing) {
            const fault = Object.assign(new Error('no'), { code: call === 'write' ? 'ENOSPC' : 'EIO' });
            const spy = vi.spyOn(prototype, call).mockRejectedValueOnce(fault);
            await expect(log.append(result(index))).rejects.toBe(fault);
            spy.mockRestore();
            expect(log.counts().completed).toBe(index);
          }
          await log.append(result(index));
        }
        const all = [0, 1, 2, 3].map((index) => `{"line":${index}}`);
        expect(await inOrder(log)).toEqual(all);
        await log.close();
        const again = await ResultLog.open(path, 4);
        expect(await inOrder(again)).toEqual(all);
        await again.close();
      }
      expect(readdirSync(folder).filter((name) => name.endsWith('.anew'))).toEqual([]);
    },
  );
});
