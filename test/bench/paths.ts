/**
 * Does the best path of the two demo phases differ, and by how much? Every path runs every phase, in turn and several
 * times over (A B C ... A B C ...), on one engine; device ms per request come from the step rows, gaps from the clients.
 * The measure, fixed before it was first run: gaps of all rounds pooled, a path keeps the objective while at most 1 % of them
 * are late (a p99 of single rounds jumps between short and long steps); the best path is the one with the least device ms per
 * request, summed over rounds, among those that keep it. How sure the choice is: the rounds drawn again with replacement.
 * Then: how far the step model's predictions are from held-out steps of this very engine.
 */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { createTelemetryClient, type TelemetryClient } from '@variator/clickhouse/client';
import { MOST_LATE_GAPS } from '@variator/optimizer/feasible-paths';
import { QUIET_SHARE } from '@variator/optimizer/step-sample';
import { z } from 'zod';
import { type ClientRecord, drivePhase } from '../../apps/engine/cli/drive.ts';
import { demoOptions } from '../../apps/engine/cli/replay/demo.ts';
import { table } from '../../apps/engine/cli/table.ts';
import { chats, flood, generator } from '../../apps/engine/cli/workload.ts';
import { startProduct } from '../running-product.ts';
import { benchModel } from './bench-model.ts';
import { type Figure, figure, spread } from './figure.ts';

const PATHS = [
  'tokenBudget=32,maxRunningCount=8',
  'tokenBudget=64,maxRunningCount=16',
  'tokenBudget=128,maxRunningCount=16',
  'tokenBudget=512,maxRunningCount=32',
];
const ROUNDS = 5;
const PHASE_MS = 8000;
/** The policy's default. */
const ITL_OBJECTIVE_MS = 50;

const REDRAWS = 1000;

interface Run {
  readonly path: string;
  readonly deviceMs: number;
  readonly requestCount: number;
  readonly gapCount: number;
  readonly lateGapCount: number;
}

export async function benchPaths(): Promise<readonly Figure[]> {
  const { path: model, label } = await benchModel();
  const product = await startProduct({ flags: ['--model', model] });
  const telemetry = createTelemetryClient(readFileSync(join(product.dataDir, 'clickhouse-url'), 'utf8'));
  try {
    const endpoint = { url: product.inferenceUrl, modelId: product.modelId, apiKey: null };
    const options = { ...(await demoOptions(endpoint, 1, PHASE_MS)), phaseMs: PHASE_MS };
    const runs = { chats: [] as Run[], flood: [] as Run[] };
    for (let round = 0; round < ROUNDS; round += 1) {
      for (const name of ['chats', 'flood'] as const) {
        for (const path of PATHS) {
          await product.admin.workers.switchTo.mutate({ workerId: 'worker-0', path: `balanced,${path}` });
          // The same arrivals and lengths for every path of a round; another first word, or the prefix cache would
          // give the later paths what the first one computed.
          const random = generator(100 + round);
          const drawn = name === 'chats' ? chats(options, random) : flood(options, random);
          const phase = {
            ...drawn,
            requests: drawn.requests.map((request) => ({
              ...request,
              prompt: `${runs.chats.length + runs.flood.length} ${request.prompt}`,
            })),
          };
          const fromMs = Date.now();
          const records: ClientRecord[] = [];
          await drivePhase(endpoint, phase, (record) => records.push(record), new AbortController().signal);
          const deviceMs = await servedDeviceMs(telemetry, fromMs, Date.now());
          const gaps = records.flatMap(({ gapsMs }) => gapsMs);
          runs[name].push({
            path,
            deviceMs,
            requestCount: records.length,
            gapCount: gaps.length,
            lateGapCount: gaps.filter((gapMs) => gapMs > ITL_OBJECTIVE_MS).length,
          });
        }
      }
    }
    const figures = [
      ...phaseFigures(label, 'chats', runs.chats),
      ...phaseFigures(label, 'flood', runs.flood),
    ];
    const best = {
      chats: bestPath(runs.chats, MOST_LATE_GAPS),
      flood: bestPath(runs.flood, Number.POSITIVE_INFINITY),
    };
    console.log(
      table(
        ['phase', 'best path'],
        [
          [`chats (at most 1 % of gaps above ${ITL_OBJECTIVE_MS} ms)`, best.chats],
          ['flood', best.flood],
        ],
      ),
    );
    const gain = spread(redrawn(runs, (drawn) => gainOf(drawn.flood, best.chats, best.flood)));
    const choices = redrawn(runs, (drawn) =>
      bestPath(drawn.chats, MOST_LATE_GAPS) === bestPath(drawn.flood, Number.POSITIVE_INFINITY) ? 0 : 1,
    );
    const differing = choices.reduce<number>((sum, differs) => sum + differs, 0) / REDRAWS;
    figures.push({
      figure: `${label}: the best path of the two phases differs, share of redrawn rounds`,
      goal: '>= 95 %',
      measured: `${(100 * differing).toFixed(1)} %`,
      interval: `${REDRAWS} redraws of ${ROUNDS} rounds`,
      isMet: best.chats !== best.flood && differing >= 0.95,
    });
    figures.push({
      figure: `${label}: flood on its best path against the chats' best path, device ms per request`,
      goal: '>= 10 % fewer',
      measured: `${(100 * gainOf(runs.flood, best.chats, best.flood)).toFixed(1)} %`,
      interval: `${(100 * gain.low).toFixed(1)} to ${(100 * gain.high).toFixed(1)} %, ${ROUNDS} rounds redrawn`,
      isMet: best.chats !== best.flood && gainOf(runs.flood, best.chats, best.flood) >= 0.1,
    });
    const [fit] = await fitAfterQuiet(product.admin);
    const floor = await noiseFloor(telemetry);
    if (fit?.heldOutMape != null) {
      figures.push({
        figure: `${label}: step model, mean error on ${fit.heldOutCount} held-out steps`,
        goal: 'noise + 5 points',
        measured: `${(100 * fit.heldOutMape).toFixed(1)} %`,
        interval: `noise: equal steps are ${(100 * floor).toFixed(1)} % from their median`,
        isMet: fit.heldOutMape <= floor + 0.05,
      });
    }
    return figures;
  } finally {
    await telemetry.close();
    await product.stop();
    product.removeData();
  }
}

async function servedDeviceMs(telemetry: TelemetryClient, fromMs: number, toMs: number): Promise<number> {
  // Rows land half a second after their step.
  await pause(1500);
  const sql = `SELECT sum(deviceMs) AS deviceMs FROM steps
    WHERE kind = 'serve' AND startedAt >= fromUnixTimestamp64Milli({fromMs:Int64}) AND startedAt < fromUnixTimestamp64Milli({toMs:Int64})`;
  const [row] = await telemetry.query(
    sql,
    { fromMs: Math.floor(fromMs), toMs: Math.ceil(toMs) },
    z.object({ deviceMs: z.number() }),
  );
  return row?.deviceMs ?? Number.NaN;
}

/** How far undisturbed steps of one shape (same counts, like contexts) are from their own median: no model can be nearer. */
async function noiseFloor(telemetry: TelemetryClient): Promise<number> {
  const sql = `SELECT sum(abs(deviceMs / middle - 1)) / count() AS floor FROM (
      SELECT deviceMs, median(deviceMs) OVER shape AS middle, count() OVER shape AS likeCount FROM steps WHERE kind = 'serve' AND foreignCpuShare <= ${QUIET_SHARE}
      WINDOW shape AS (PARTITION BY kernelsId, decodeSequenceCount, prefillSequenceCount, prefillTokenCount,
        intDiv(decodeContextTokens, 256), intDiv(toUInt64(prefillAttention), 8192))
    ) WHERE likeCount >= 8`;
  const [row] = await telemetry.query(sql, {}, z.object({ floor: z.number() }));
  return row?.floor ?? Number.NaN;
}

function phaseFigures(label: string, phase: string, runs: readonly Run[]): Figure[] {
  return PATHS.flatMap((path) => {
    const own = runs.filter((run) => run.path === path);
    const cost = figure(
      `${label}, ${phase}, ${path}: device ms per request`,
      spread(own.map((run) => run.deviceMs / run.requestCount)),
      'ms',
      '',
      null,
      1,
    );
    if (phase === 'flood') return [cost];
    const late = spread(own.map((run) => (100 * run.lateGapCount) / run.gapCount));
    return [
      cost,
      {
        figure: `${label}, ${phase}, ${path}: gaps above ${ITL_OBJECTIVE_MS} ms, pooled`,
        goal: '',
        measured: `${(100 * lateGapShare(own)).toFixed(2)} %`,
        interval: `single rounds ${late.low.toFixed(2)} to ${late.high.toFixed(2)} %`,
        isMet: null,
      },
    ];
  });
}

const total = (runs: readonly Run[], of: (run: Run) => number): number =>
  runs.reduce((sum, run) => sum + of(run), 0);

const lateGapShare = (runs: readonly Run[]): number =>
  total(runs, (run) => run.lateGapCount) / total(runs, (run) => run.gapCount);

const costOf = (runs: readonly Run[]): number =>
  total(runs, (run) => run.deviceMs) / total(runs, (run) => run.requestCount);

/** The least device ms per request among the paths that keep the objective; where none does, the one with the fewest late gaps. */
function bestPath(runs: readonly Run[], lateGapsAllowed: number): string {
  const judged = PATHS.map((path) => {
    const own = runs.filter((run) => run.path === path);
    return { path, cost: costOf(own), late: lateGapShare(own) };
  });
  const keeping = judged.filter(({ late }) => !(late > lateGapsAllowed));
  const pool = keeping.length > 0 ? keeping : judged.sort((a, b) => a.late - b.late).slice(0, 1);
  return pool.sort((a, b) => a.cost - b.cost)[0]?.path ?? '';
}

/** Share of device ms that `to` saves against `from`. */
function gainOf(runs: readonly Run[], from: string, to: string): number {
  const of = (path: string) => costOf(runs.filter((run) => run.path === path));
  return 1 - of(to) / of(from);
}

/** The value of whole rounds drawn with replacement: what one round had in common for all paths stays together. */
function redrawn(
  runs: { readonly chats: readonly Run[]; readonly flood: readonly Run[] },
  measure: (drawn: { chats: Run[]; flood: Run[] }) => number,
): number[] {
  const random = generator(7);
  return Array.from({ length: REDRAWS }, () => {
    const rounds = Array.from({ length: ROUNDS }, () => Math.floor(random() * ROUNDS));
    const ofRounds = (all: readonly Run[]) =>
      rounds.flatMap((round) => all.slice(round * PATHS.length, (round + 1) * PATHS.length));
    return measure({ chats: ofRounds(runs.chats), flood: ofRounds(runs.flood) });
  });
}

async function fitAfterQuiet(admin: Awaited<ReturnType<typeof startProduct>>['admin']) {
  await pause(8000);
  const fits = await admin.fits.list.query();
  return [...fits].sort((a, b) => b.sampleCount - a.sampleCount);
}
