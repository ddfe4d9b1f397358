/** Lines of batches beside requests, without workers, and over a restart; the fleet echoes. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { MODEL } from './served.fixture.ts';
import {
  completionLine,
  ended,
  linesOf,
  reaches,
  serveBatches,
  submitted,
} from './served-batches.fixture.ts';

describe('a line', () => {
  test('makes room for requests: beside many of them one line runs at a time', async () => {
    const own = await serveBatches({
      scriptFor: () => ({ tokenIds: [5, 6], gapMs: 5 }),
    });
    try {
      const ids = Array.from({ length: 60 }, (_, index) => `line ${index}`);
      const { id } = await submitted(
        own.client,
        ids.map((each) => completionLine(each, { max_tokens: 8 })),
      );
      while (own.fleet.activeCount() < 7) await new Promise((resolve) => setTimeout(resolve, 2));
      expect(own.fleet.activeCount(), 'an eighth of the 8 places stays free').toBe(7);
      const body = { model: MODEL, prompt: 'x', max_tokens: 120, ignore_eos: true };
      const online = Array.from({ length: 6 }, () => own.post('/v1/completions', body));
      const requestCount = () => own.fleet.submitted.filter((spec) => spec.serviceTier !== 'flex').length;
      while (requestCount() < 6 || own.fleet.activeCount() > 7) {
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
      const flexBefore = own.fleet.endings.length;
      let most = 0;
      while (own.fleet.endings.length < flexBefore + 5) {
        most = Math.max(most, own.fleet.activeCount());
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
      expect(most, 'six requests and one line').toBeLessThanOrEqual(7);
      await Promise.all(online);
      expect((await ended(own.client, id)).request_counts?.completed).toBe(60);
    } finally {
      await own.close();
    }
  });

  test('that finds no worker waits for one; one that loses every worker is given up, the others are not', async () => {
    let losses = 0;
    const own = await serveBatches({
      scriptFor: (spec) => {
        if (spec.program === 'poison') return { tokenIds: [5, 2], loseAt: 1 };
        losses += 1;
        return losses <= 2 ? { tokenIds: [5, 2], loseAt: 1 } : { tokenIds: [5, 2] };
      },
    });
    try {
      own.fleet.unready('no worker has joined yet');
      const lines = [completionLine('poison', { user: 'poison' }), completionLine('a'), completionLine('b')];
      const { id } = await submitted(own.client, lines);
      await reaches(own.client, id, 'in_progress');
      await new Promise((resolve) => setTimeout(resolve, 300));
      expect((await own.client.batches.retrieve(id)).request_counts).toEqual({
        total: 3,
        completed: 0,
        failed: 0,
      });
      own.fleet.unready('');
      const batch = await ended(own.client, id);
      expect(batch.request_counts).toEqual({ total: 3, completed: 2, failed: 1 });
      const [failed] = await linesOf(own.client, batch.error_file_id);
      expect(failed).toMatchObject({
        custom_id: 'poison',
        response: { status_code: 503, body: { error: { code: 'worker_lost' } } },
      });
      expect(own.fleet.submitted.filter((spec) => spec.program === 'poison')).toHaveLength(4);
    } finally {
      await own.close();
    }
  });

  test('is run again by the next start where this one ended before it, and only then', async () => {
    const first = await serveBatches({ scriptFor: () => ({ tokenIds: [5, 2], gapMs: 5 }) });
    const ids = Array.from({ length: 80 }, (_, index) => `line ${index}`);
    const { id } = await submitted(
      first.client,
      ids.map((each) => completionLine(each)),
    );
    while (((await first.client.batches.retrieve(id)).request_counts?.completed ?? 0) < 20) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await first.leave();
    const doneCount = first.fleet.endings.filter(({ reason }) => reason !== 'cancelled').length;
    expect(first.fleet.activeCount()).toBe(0);
    const second = await serveBatches({ folder: first.folder });
    try {
      const counts = (await second.client.batches.retrieve(id)).request_counts?.completed ?? 0;
      expect(counts).toBeGreaterThanOrEqual(20);
      const batch = await ended(second.client, id);
      expect((await linesOf(second.client, batch.output_file_id)).map((line) => line.custom_id)).toEqual(ids);
      expect(second.fleet.submitted).toHaveLength(80 - doneCount);
    } finally {
      await second.close();
    }
  });

  test('without its input ends the batch as failed, with the reason, and nothing else', async () => {
    const first = await serveBatches({ scriptFor: () => ({ tokenIds: [5, 2], gapMs: 50 }) });
    const lost = await submitted(first.client, [completionLine('a'), completionLine('b')]);
    await reaches(first.client, lost.id, 'in_progress');
    await first.leave();
    rmSync(join(first.folder, 'files', lost.input_file_id));
    const second = await serveBatches({ folder: first.folder });
    try {
      const batch = await ended(second.client, lost.id);
      expect(batch).toMatchObject({
        status: 'failed',
        errors: { data: [{ code: 'file_not_found', param: 'input_file_id' }] },
      });
      const other = await submitted(second.client, [completionLine('a')]);
      expect((await ended(second.client, other.id)).status).toBe('completed');
      expect(second.logged).toEqual([]);
    } finally {
      await second.close();
    }
  });
});
