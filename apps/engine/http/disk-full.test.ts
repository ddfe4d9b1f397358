/** Files and batches on a disk that is really full: a small tmpfs, where this process may mount one. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { MODEL } from './served.fixture.ts';
import {
  completionLine,
  ended,
  linesOf,
  type ServedBatches,
  serveBatches,
  submitted,
  uploaded,
} from './served-batches.fixture.ts';

const disk = mkdtempSync(join(tmpdir(), 'variator-small-disk-'));
const isMounted = (() => {
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=6m', 'none', disk], { stdio: 'ignore' });
    return true;
  } catch {
    console.warn('SKIPPED: a full disk needs the right to mount a tmpfs');
    return false;
  }
})();

let served: ServedBatches | null = null;
afterAll(async () => {
  await served?.leave();
  // Lazily: the database's file is closed with the process.
  if (isMounted) execFileSync('umount', ['-l', disk]);
  rmdirSync(disk);
});

const ballast = join(disk, 'ballast');
/** Fills the disk but for about so many bytes. */
function fill(leftBytes: number): void {
  const { bavail, bsize } = statfsSync(disk);
  writeFileSync(ballast, Buffer.alloc(Math.max(0, bavail * bsize - leftBytes)));
}
const empty = (): void => rmSync(ballast, { force: true });
const doneCount = async ({ client }: ServedBatches, id: string): Promise<number> =>
  (await client.batches.retrieve(id)).request_counts?.completed ?? 0;

describe.skipIf(!isMounted)('on a full disk', () => {
  test('an upload is refused with the reason and leaves nothing; with room again it is taken', async () => {
    served = await serveBatches({
      folder: join(disk, 'batches'),
      scriptFor: () => ({ tokenIds: [5, 6, 2], gapMs: 2 }),
    });
    const { client, folder } = served;
    fill(300_000);
    const big = `${completionLine('a')}\n${' '.repeat(1_000_000)}`;
    await expect(uploaded(client, big)).rejects.toMatchObject({ status: 507, code: 'disk_full' });
    expect(readdirSync(join(folder, 'files'))).toEqual([]);
    empty();
    await client.files.delete(await uploaded(client, big));
  });

  test('a batch waits where it is, online requests go on, and with room again it ends whole', async () => {
    if (served === null) throw new Error('the test before this one starts the server');
    const { client } = served;
    const ids = Array.from({ length: 600 }, (_, index) => `line ${index} ${'x'.repeat(400)}`);
    const { id } = await submitted(
      client,
      ids.map((each) => completionLine(each, { max_tokens: 4 })),
    );
    while ((await doneCount(served, id)) < 20) await new Promise((resolve) => setTimeout(resolve, 10));
    fill(20_000);
    const waits = (): boolean => served?.logged.some((line) => line.includes('waits')) ?? false;
    while (!waits()) await new Promise((resolve) => setTimeout(resolve, 20));
    expect(await doneCount(served, id)).toBeLessThan(ids.length);
    expect((await client.batches.retrieve(id)).status).toBe('in_progress');
    const online = await served.post('/v1/completions', { model: MODEL, prompt: 'x', max_tokens: 2 });
    expect(online.status).toBe(200);
    await expect(uploaded(client, 'x'.repeat(100_000))).rejects.toMatchObject({ code: 'disk_full' });
    empty();
    const batch = await ended(client, id);
    expect(batch).toMatchObject({ status: 'completed', request_counts: { completed: ids.length } });
    expect((await linesOf(client, batch.output_file_id)).map((line) => line.custom_id)).toEqual(ids);
  });

  test('without any room nothing is promised that is not kept', async () => {
    if (served === null) throw new Error('the test before the last starts the server');
    const { client } = served;
    const inputFileId = await uploaded(client, [completionLine('a')]);
    fill(0);
    const asked = {
      input_file_id: inputFileId,
      endpoint: '/v1/completions',
      completion_window: '24h',
    } as const;
    const made = await client.batches.create(asked).catch((error: unknown) => error);
    empty();
    if (made instanceof Error) {
      expect(made).toMatchObject({ status: 507, code: 'disk_full' });
    } else {
      expect((await ended(client, (made as { id: string }).id)).status).toBe('completed');
    }
    const again = await client.batches.create(asked);
    expect((await ended(client, again.id)).status).toBe('completed');
  });
});
