/**
 * The round that reads workload windows, feeds the detector and publishes its marks. Called by main.ts once a window.
 * Windows are counted at the end of requests, so the newest is whole. While a shift is suspected nothing is
 * proposed (suggest-paths.ts).
 */
import type { TelemetryClient } from '@variator/clickhouse/client';
import { insertRows } from '@variator/clickhouse/insert';
import { regimeMarks } from '@variator/clickhouse/queries/regime-marks';
import { workloadWindows } from '@variator/clickhouse/queries/workload-windows';
import { advance, NO_REGIME, type RegimeDetection, type RegimeState } from '@variator/optimizer/regime';
import type { Gateway } from './gateway.ts';

export interface RegimeMarker {
  round(now: number): Promise<void>;
  /** The regime of this moment, or null before any was learned. */
  current(): RegimeDetection | null;
  /** The workload seems to have left that regime, and nothing has confirmed or refuted it yet. */
  isSuspended(): boolean;
}

/** Rows of a window that has just ended are still on their way. */
const ROWS_DELAY_MS = 1500;
/** What a start looks back, in windows. */
const LOOK_BACK_WINDOWS = 6;
const MOST_WINDOWS_A_ROUND = 500;
const DETECTOR = 'newest-means';
/** A gateway that was started again learns the regime's name within this. */
const REPUBLISH_EVERY_MS = 30_000;

export function createRegimeMarker(options: {
  readonly gateway: Gateway;
  readonly telemetry: TelemetryClient;
  readonly windowMs: number;
  readonly log: (line: string) => void;
}): RegimeMarker {
  const { gateway, telemetry, windowMs, log } = options;
  let state: RegimeState = NO_REGIME;
  let nextWindowAt: number | null = null;
  let publishedAt = 0;

  async function publish(mark: RegimeDetection): Promise<void> {
    const { regimeId, name, startedAt, detectedAt, isConfirmed, features } = mark;
    const row = { regimeId, name, startedAt, detectedAt, isConfirmed };
    await insertRows(
      telemetry,
      'regimes',
      [{ ...row, features: JSON.stringify(features), detector: DETECTOR }],
      `${regimeId} ${detectedAt}`,
    );
    await mirror(mark);
    log(`regime: ${name}`);
  }

  /** Into the gateway's memory, for the overview. */
  async function mirror(mark: RegimeDetection): Promise<void> {
    const { regimeId, name, startedAt, detectedAt, isConfirmed } = mark;
    await gateway.regimes.publish.mutate({
      regimeId,
      name,
      startedAt,
      detectedAt,
      isConfirmed,
      endedAt: null,
    });
    publishedAt = Date.now();
  }

  /** After a restart the regime that is on goes on, if it began while we could still have seen it. */
  async function start(now: number): Promise<number> {
    const from = (Math.floor(now / windowMs) - LOOK_BACK_WINDOWS) * windowMs;
    const [last] = (await regimeMarks(telemetry, { fromMs: from, toMs: now })).slice(-1);
    if (last !== undefined && now - last.detectedAt < 3_600_000) {
      state = {
        ...NO_REGIME,
        current: { ...last, isRecalled: false, features: NO_FEATURES, risenFeature: '' },
      };
    }
    return from;
  }

  return {
    current: () => state.current,
    isSuspended: () => state.isSuspected,
    async round(now) {
      nextWindowAt ??= await start(now);
      if (state.current !== null && now - publishedAt > REPUBLISH_EVERY_MS) await mirror(state.current);
      const wholeUntil = Math.floor((now - ROWS_DELAY_MS) / windowMs) * windowMs;
      const fromMs = Math.max(nextWindowAt, wholeUntil - MOST_WINDOWS_A_ROUND * windowMs);
      if (wholeUntil <= fromMs) return;
      const windows = await workloadWindows(telemetry, {
        fromMs,
        toMs: wholeUntil,
        windowMs,
        countedAt: 'end',
      });
      for (const { startedAt, requestCount, sessionCount, concurrency: _, ...features } of windows) {
        const step = advance(state, { startedAt, requestCount, sessionCount, windowMs, features });
        // A suspicion only holds proposals back: it is no regime that people would see again.
        for (const mark of step.marks) {
          if (mark.kind === 'first' || mark.kind === 'confirmed') await publish(mark);
        }
        state = step.state;
        nextWindowAt = startedAt + windowMs;
      }
    },
  };
}

const NO_FEATURES = {
  meanLogPrompt: null,
  p90LogPrompt: null,
  meanLog1pUncached: null,
  meanLogOutput: null,
  logArrivalRate: null,
  logSessionRate: null,
  logCv2: null,
  meanHitShare: null,
} as const;
