/**
 * overview.*: what the first page shows. The fleet's and the control plane's part is always there; what ClickHouse
 * measured is null, with the fault in words, while it does not answer.
 */
import { overviewSeries } from '@variator/clickhouse/queries/overview-series';
import { overviewSummary } from '@variator/clickhouse/queries/overview-summary';
import { pathSpans } from '@variator/clickhouse/queries/path-spans';
import { regimeMarks } from '@variator/clickhouse/queries/regime-marks';
import { pathId } from '@variator/kernels/execution-path';
import { z } from 'zod';
import type { RolloutView } from '../control/control-types.ts';
import type { WorkerView } from '../fleet/fleet.ts';
import type { OverviewSeries, OverviewSummary } from './contract.ts';
import { span } from './inputs.ts';
import { answerOf, TelemetryFault } from './telemetry-answer.ts';
import { query, router } from './trpc.ts';

/** A chart needs no more points than it has pixels. */
const MOST_POINTS = 1000;
/** As long as the sums by hour are surely there. */
const LONGEST_WINDOW_MS = 90 * 86_400_000;
const MOST_ROLLOUTS = 100;

const seriesQuestion = span
  .safeExtend({ bucketMs: z.number().int().min(250).max(86_400_000) })
  .refine(({ fromMs, toMs, bucketMs }) => (toMs - fromMs) / bucketMs <= MOST_POINTS, {
    error: `the span may hold at most ${MOST_POINTS} buckets: ask for a larger bucketMs`,
  });

const deviceNames = (workers: readonly WorkerView[], isMeant: (deviceKind: string) => boolean): string[] => [
  ...new Set(workers.flatMap(({ envelope }) => (isMeant(envelope.deviceKind) ? [envelope.deviceName] : []))),
];

export const overview = router({
  summary: query
    .input(z.strictObject({ windowMs: z.number().int().min(1000).max(LONGEST_WINDOW_MS) }))
    .query(async ({ ctx, input }): Promise<OverviewSummary> => {
      const now = ctx.now();
      const workers = ctx.fleet.workers();
      const first = workers[0];
      const livePath = first ? ctx.control.standingPathOf(first) : null;
      const { deviceUsdPerHour } = ctx.control.policy();
      const { measured, telemetryFault } = await answerOf(ctx.telemetry, (client) =>
        overviewSummary(client, {
          fromMs: now - input.windowMs,
          toMs: now,
          now,
          usdPerHour: deviceUsdPerHour,
        }),
      ).then(
        (answer) => ({ measured: answer, telemetryFault: ctx.recorder.fault() }),
        (error: unknown) => {
          if (!(error instanceof TelemetryFault)) throw error;
          return { measured: null, telemetryFault: error.message };
        },
      );
      return {
        now,
        isReady: ctx.fleet.canServe(),
        unreadyReason: ctx.fleet.unreadyReason(),
        modelId: ctx.modelId,
        livePathId: livePath ? pathId(livePath) : '',
        livePath,
        regimeName: ctx.control.regimeName(),
        simulatedDeviceNames: deviceNames(workers, (kind) => kind.startsWith('simulated')),
        emulatedDeviceNames: deviceNames(workers, (kind) => kind === 'cuda-emulated'),
        requestCount: measured?.requestCount ?? 0,
        errorCount: measured?.errorCount ?? 0,
        outputTokensPerSecond: measured?.outputTokensPerSecond ?? null,
        inputTokensPerSecond: measured?.inputTokensPerSecond ?? null,
        ttftP95Ms: measured?.ttftP95Ms ?? null,
        itlP95Ms: measured?.itlP95Ms ?? null,
        costUsdPerMillionTokens: measured?.costUsdPerMillionTokens ?? null,
        sloAttainment: measured?.sloAttainment ?? null,
        runningCount: workers.reduce((sum, worker) => sum + worker.runningCount, 0),
        mostRunningCount: workers.reduce((sum, { path }) => sum + path.maxRunningCount, 0),
        waitingCount: workers.reduce((sum, worker) => sum + worker.waitingCount, 0),
        droppedRowCount: ctx.recorder.droppedRowCount(),
        lastStepAt: measured?.lastStepAt ?? null,
        telemetryFault,
      };
    }),

  series: query.input(seriesQuestion).query(async ({ ctx, input }): Promise<OverviewSeries> => {
    const { fromMs, toMs, bucketMs } = input;
    const now = ctx.now();
    const { objectives, deviceUsdPerHour } = ctx.control.policy();
    const [measured, rollouts] = await Promise.all([
      answerOf(ctx.telemetry, async (client) => {
        const [points, regimes, paths] = await Promise.all([
          overviewSeries(client, { fromMs, toMs, now, bucketMs, usdPerHour: deviceUsdPerHour }),
          regimeMarks(client, { fromMs, toMs }),
          pathSpans(client, { fromMs, toMs, now, bucketMs }),
        ]);
        return { points, regimes, paths };
      }),
      ctx.control.rollouts(MOST_ROLLOUTS),
    ]);
    return { bucketMs, ...measured, rollouts: marksOf(rollouts, fromMs, toMs), objectives };
  }),
});

function marksOf(rollouts: readonly RolloutView[], fromMs: number, toMs: number): OverviewSeries['rollouts'] {
  return rollouts
    .filter(({ startedAt, endedAt }) => startedAt <= toMs && (endedAt ?? toMs) >= fromMs)
    .map(({ startedAt, endedAt, title, state }) => ({
      at: endedAt ?? startedAt,
      label: title,
      outcome: state,
    }));
}
