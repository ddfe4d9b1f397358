/** The endpoint killed outright at whatever moment: while it takes a file, reads it, runs its lines, writes the output. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import OpenAI from 'openai';
import { afterAll, expect, test } from 'vitest';
import { completionLine, ended, linesOf, submitted } from './served-batches.fixture.ts';

const KILLS = 7;
const LINE_COUNT = 150;
const script = fileURLToPath(new URL('batches-process.fixture.ts', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'variator-killed-'));
let child: ChildProcess | null = null;
afterAll(() => {
  child?.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

async function start(): Promise<OpenAI> {
  const started = spawn(process.execPath, ['--import', 'tsx', script, folder], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  child = started;
  const port = await new Promise<string>((resolve, reject) => {
    let output = '';
    started.stdout.on('data', (data: Buffer) => {
      output += data.toString();
      const found = /listening (\d+)/.exec(output)?.[1];
      if (found !== undefined) resolve(found);
    });
    started.once('close', () => reject(new Error(`It ended: ${output}`)));
  });
  return new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, apiKey: 'any', maxRetries: 0 });
}

async function kill(): Promise<void> {
  const gone = new Promise((resolve) => child?.once('close', resolve));
  child?.kill('SIGKILL');
  await gone;
}

const idsOf = (round: number): string[] =>
  Array.from({ length: LINE_COUNT }, (_, line) => `${round}/${line}`);

test('every batch that was taken ends whole: each line once, in order, whatever was under way at each kill', async () => {
  const taken: { round: number; id: string }[] = [];
  for (let round = 0; round < KILLS; round += 1) {
    const client = await start();
    const submitting = submitted(
      client,
      idsOf(round).map((id) => completionLine(id)),
    ).then(
      ({ id }) => {
        taken.push({ round, id });
      },
      // Killed before it said yes: then nothing was promised.
      () => undefined,
    );
    // From the first bytes of the upload to well after the output of a batch: 5 ms to about 800 ms.
    await new Promise((resolve) => setTimeout(resolve, 5 + ((round * 389) % 800)));
    await kill();
    await submitting;
  }
  const client = await start();
  expect(taken.length).toBeGreaterThan(0);
  for (const { round, id } of taken) {
    const batch = await ended(client, id);
    expect(batch).toMatchObject({ status: 'completed', error_file_id: null });
    const lines = await linesOf(client, batch.output_file_id);
    expect(lines.map((line) => line.custom_id)).toEqual(idsOf(round));
    expect(new Set(lines.map((line) => line.response?.request_id)).size).toBe(LINE_COUNT);
  }
  // What a kill left half written is gone, and so are the results of what has ended.
  const files = (await client.files.list()).data.map((file) => file.id);
  expect(readdirSync(join(folder, 'files')).sort()).toEqual([...files].sort());
  expect(readdirSync(join(folder, 'results'))).toEqual([]);
  for (const fileId of files) expect((await client.files.delete(fileId)).deleted).toBe(true);
  expect(readdirSync(join(folder, 'files'))).toEqual([]);
}, 120_000);
