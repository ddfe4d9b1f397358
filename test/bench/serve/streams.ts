/**
 * 200 concurrent streams whose clients leave at random: whether anything stays behind (a zombie sequence, a KV block), and
 * how soon a sequence ends after its client has left, beside the longest step that it had to wait for. On the real product.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createTelemetryClient, type TelemetryClient } from '@variator/clickhouse/client';
import { z } from 'zod';
import { generator, words } from '../../../apps/engine/cli/workload.ts';
import { askAndLeave, type Leaving, type LeavingClient } from '../../leaving-clients.ts';
import { descendantsOf } from '../../process-tree.ts';
import { type RunningProduct, startProduct } from '../../running-product.ts';
import { waitUntil } from '../../wait-until.ts';
import { type Figure, figure, spread } from '../figure.ts';

const STREAM_COUNT = 200;
const FOR_MS = 20_000;
/** All 200 come in the same moment to a gateway that has never run its code: its own figure. */
const COLD_MS = 3000;
const DRAINED_STREAMS = 100;
/** Beyond the step that was under way. */
const MOST_DELAY_MS = 100;

export async function benchStreams(): Promise<readonly Figure[]> {
  const product = await startProduct({ flags: ['--model', 'models/stories-5m'] });
  try {
    const pids = workerPids(product.pid);
    const clients = await keepLeaving(product.inferenceUrl, product.modelId);
    const lastLeftAt = Math.max(...clients.map(({ leftAt }) => leftAt));
    const idleMs = await waitUntil('nothing is left behind', 30_000, async () => {
      const workers = await product.admin.workers.list.query();
      const isIdle = workers.every(
        ({ runningCount, waitingCount, kvUsedBlockCount }) =>
          runningCount + waitingCount + kvUsedBlockCount === 0,
      );
      return isIdle && performance.timeOrigin + performance.now() - lastLeftAt;
    }).catch(() => null);
    const workers = await product.admin.workers.list.query();
    const zombies = workers.reduce((sum, worker) => sum + worker.runningCount + worker.waitingCount, 0);
    const heldBlocks = workers.reduce((sum, worker) => sum + worker.kvUsedBlockCount, 0);
    const url = readFileSync(join(product.dataDir, 'clickhouse-url'), 'utf8');
    const telemetry = createTelemetryClient(url);
    const endings = await endingsOf(telemetry, clients).finally(() => telemetry.close());
    const pidsAfter = workerPids(product.pid);
    const drained = await drainWithStreams(product);
    const stayed = clients.filter(({ leaving, status }) => leaving.at === 'end' && status === 200);
    const refused = clients.filter(({ status }) => status === 429).length;
    const warm = endings.filter(({ isCold }) => !isCold);
    const delays = spread(warm.map(({ delayMs }) => delayMs));
    const [beyondP99, coldBeyondP99] = [warm, endings.filter(({ isCold }) => isCold)].map((some) => {
      const beyond = some.map(({ delayMs, stepMs }) => delayMs - stepMs).sort((a, b) => a - b);
      return beyond[Math.floor(0.99 * (beyond.length - 1))] ?? Number.NaN;
    }) as [number, number];
    const left = clients.length - stayed.length - refused;
    const fact = (name: string, measured: number | string, goal: string, isMet: boolean | null): Figure => ({
      figure: name,
      goal,
      measured: String(measured),
      interval: `${STREAM_COUNT} streams at once for ${FOR_MS / 1000} s`,
      isMet,
    });
    return [
      fact('clients that left / stayed / were refused', `${left} / ${stayed.length} / ${refused}`, '', null),
      fact(
        'streams read to their end that were whole',
        `${stayed.filter(({ isDone }) => isDone).length} of ${stayed.length}`,
        'all',
        stayed.every(({ isDone }) => isDone),
      ),
      fact('zombie sequences when idle', zombies, '0', zombies === 0),
      fact('KV blocks held when idle', heldBlocks, '0', heldBlocks === 0),
      fact(
        'workers that ended themselves over their books',
        pidsAfter.filter((pid) => !pids.includes(pid)).length,
        '0',
        pidsAfter.every((pid) => pids.includes(pid)),
      ),
      fact(
        'idle after the last one left (heartbeats: twice a second)',
        `${Math.round(idleMs ?? -1)} ms`,
        '',
        null,
      ),
      figure('a sequence ends after its client left', delays, 'ms', '', null, 1),
      fact(
        'the same, p99, beyond the step under way',
        `${beyondP99.toFixed(1)} ms`,
        `<= ${MOST_DELAY_MS} ms`,
        beyondP99 <= MOST_DELAY_MS,
      ),
      fact(
        `the same of those who left in the first ${COLD_MS / 1000} s, a gateway just started`,
        `${coldBeyondP99.toFixed(1)} ms`,
        '',
        null,
      ),
      fact(
        `SIGTERM with ${DRAINED_STREAMS} streams open: cut streams, exit code`,
        `${drained.cutCount}, ${drained.exitCode}`,
        '0, 0',
        drained.cutCount === 0 && drained.exitCode === 0,
      ),
    ];
  } finally {
    await product.stop();
    product.removeData();
  }
}

/** The last thing that the product does. */
async function drainWithStreams(product: RunningProduct): Promise<{ cutCount: number; exitCode: number }> {
  const streams = Array.from({ length: DRAINED_STREAMS }, (_, index) =>
    askAndLeave({
      ...{ url: product.inferenceUrl, session: `last-${index}`, leaving: { at: 'end' as const } },
      body: {
        model: product.modelId,
        prompt: `${index} was`,
        max_tokens: 150,
        ignore_eos: true,
        stream: true,
      },
    }),
  );
  await waitUntil('the streams are inside', 20_000, async () => {
    const workers = await product.admin.workers.list.query();
    return workers.reduce((sum, each) => sum + each.runningCount + each.waitingCount, 0) === DRAINED_STREAMS;
  });
  const exitCode = await product.stop('SIGTERM');
  const ended = await Promise.all(streams);
  return {
    cutCount: ended.filter(({ isDone, text }) => !isDone || text.includes('"error"')).length,
    exitCode,
  };
}

const workerPids = (supervisorPid: number): number[] =>
  descendantsOf(supervisorPid)
    .filter(({ commandLine }) => commandLine.includes('apps/engine/worker/main.ts'))
    .map(({ pid }) => pid);

/** Each place is taken again as soon as its client has left; every tenth client stays. */
async function keepLeaving(url: string, model: string): Promise<LeavingClient[]> {
  const random = generator(11);
  const clients: LeavingClient[] = [];
  const until = performance.now() + FOR_MS;
  let count = 0;
  const leavingOf = (): Leaving => {
    const roll = random();
    if (roll < 0.1) return { at: 'end' };
    if (roll < 0.2) return { at: 'sent' };
    if (roll < 0.5) return { at: 'wait', ms: random() * 1500 };
    return { at: 'token', count: 1 + Math.floor(random() * 120) };
  };
  const place = async (): Promise<void> => {
    while (performance.now() < until) {
      count += 1;
      const leaving = leavingOf();
      const client = await askAndLeave({
        ...{ url, session: `leaving-${count}`, leaving },
        body: {
          model,
          prompt: words(20 + Math.floor(random() * 60), random),
          max_tokens: leaving.at === 'end' ? 60 : 400,
          temperature: 0,
          ignore_eos: true,
          stream: true,
        },
      });
      clients.push(client);
      // Refused or failed at once: not in a circle.
      if (client.status >= 400) await new Promise((resolve) => setTimeout(resolve, 200));
    }
  };
  await Promise.all(Array.from({ length: STREAM_COUNT }, place));
  return clients;
}

interface Ending {
  readonly isCold: boolean;
  readonly delayMs: number;
  /** The longest step between leaving and ending. */
  readonly stepMs: number;
}

/** Of the sequences that were cancelled after their client had left; rows come with a delay. */
async function endingsOf(telemetry: TelemetryClient, clients: readonly LeavingClient[]): Promise<Ending[]> {
  const leftAt = new Map(clients.map((client) => [client.session, client.leftAt]));
  const firstLeftAt = Math.min(...leftAt.values());
  await new Promise((resolve) => setTimeout(resolve, 3000));
  const rows = await telemetry.query(
    `SELECT session, toFloat64(arrivedAt) * 1000 + e2eMs AS endedAt FROM requests
     WHERE session LIKE 'leaving-%' AND finishReason = 'cancelled'`,
    {},
    z.object({ session: z.string(), endedAt: z.number() }),
  );
  const steps = await telemetry.query(
    `SELECT toFloat64(startedAt) * 1000 AS startedAt, deviceMs + scheduleMs AS ms FROM steps ORDER BY startedAt`,
    {},
    z.object({ startedAt: z.number(), ms: z.number() }),
  );
  return rows.flatMap(({ session, endedAt }) => {
    const from = leftAt.get(session);
    if (from === undefined) return [];
    const during = steps.filter(({ startedAt, ms }) => startedAt + ms >= from && startedAt <= endedAt);
    const isCold = from < firstLeftAt + COLD_MS;
    return [{ isCold, delayMs: endedAt - from, stepMs: Math.max(0, ...during.map(({ ms }) => ms)) }];
  });
}
