/**
 * The round that reads workload windows, feeds the detector, publishes its marks and keeps its state. Called by main.ts
 * once a window. Windows are counted at the end of requests, so the newest is whole. While a shift is suspected nothing is
 * proposed (suggest-paths.ts). What it knows is in ClickHouse: after a crash it goes on from there, and windows since
 * then are seen again with the same marks, which are stored once.
 */
import type { TelemetryClient } from '@variator/clickhouse/client';
import { insertRows } from '@variator/clickhouse/insert';
import { workloadWindows } from '@variator/clickhouse/queries/workload-windows';
import {
  advance,
  NO_REGIME,
  type RegimeDetection,
  type RegimeMark,
  type RegimeState,
} from '@variator/optimizer/regime';
import { livesOnAs } from '@variator/optimizer/regime-library';
import type { Gateway } from './gateway.ts';
import { DETECTOR, loadState, saveState } from './stored-regimes.ts';

export interface RegimeMarker {
  round(now: number): Promise<void>;
  /** The regime of this moment, or null before any was learned. */
  current(): RegimeDetection | null;
  /** The workload seems to have left that regime, and nothing has confirmed or refuted it yet. */
  isSuspended(): boolean;
  /** The id under which this regime goes on: it may have been merged into another. '' where it was forgotten. */
  livingId(regimeId: string): string;
}

/** Rows of a window that has just ended are still on their way. */
const ROWS_DELAY_MS = 1500;
/** What a first start looks back, in windows. */
const LOOK_BACK_WINDOWS = 6;
const MOST_WINDOWS_A_ROUND = 500;
/** Without a mark the state is saved this often, in windows: a start sees at most so many again. */
const SAVE_EVERY_WINDOWS = 20;
/** A gateway that was started again learns the regime's name within this. */
const REPUBLISH_EVERY_MS = 30_000;

export function createRegimeMarker(options: {
  readonly gateway: Gateway;
  readonly telemetry: TelemetryClient;
  readonly windowMs: number;
  readonly log: (line: string) => void;
}): RegimeMarker {
  const { gateway, telemetry, windowMs, log } = options;
  let state: RegimeState | null = null;
  let savedUntil = 0;
  let publishedAt = 0;

  async function publish(mark: RegimeMark): Promise<void> {
    const { regimeId, name, startedAt, detectedAt, isConfirmed, features } = mark;
    const row = { regimeId, name, startedAt, detectedAt, isConfirmed };
    await insertRows(
      telemetry,
      'regimes',
      [{ ...row, features: JSON.stringify(features), detector: DETECTOR }],
      `${regimeId} ${detectedAt}`,
    );
    // A suspicion is a hatched band, and no regime that anybody should work by.
    if (mark.kind === 'suspected' || mark.kind === 'refuted') return;
    await mirror(mark);
    log(`regime: ${name}${mark.isRecalled ? ', as before' : ''}`);
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

  async function load(now: number): Promise<RegimeState> {
    const seenUntil = (Math.floor(now / windowMs) - LOOK_BACK_WINDOWS) * windowMs;
    let stored: RegimeState | null = null;
    try {
      stored = await loadState(telemetry, windowMs);
    } catch (error) {
      if (!(error instanceof SyntaxError || (error instanceof Error && error.name === 'ZodError')))
        throw error;
      log('regimes: what was stored cannot be read, so they are learned anew');
    }
    savedUntil = stored?.seenUntil ?? 0;
    return stored ?? { ...NO_REGIME, seenUntil };
  }

  return {
    current: () => state?.current ?? null,
    isSuspended: () => state?.isSuspected ?? false,
    livingId: (regimeId) => livesOnAs(state?.library ?? [], regimeId)?.regimeId ?? '',
    async round(now) {
      state ??= await load(now);
      if (state.current !== null && now - publishedAt > REPUBLISH_EVERY_MS) await mirror(state.current);
      const wholeUntil = Math.floor((now - ROWS_DELAY_MS) / windowMs) * windowMs;
      const fromMs = Math.max(state.seenUntil, wholeUntil - MOST_WINDOWS_A_ROUND * windowMs);
      if (wholeUntil <= fromMs) return;
      const windows = await workloadWindows(telemetry, {
        fromMs,
        toMs: wholeUntil,
        windowMs,
        countedAt: 'end',
      });
      for (const { startedAt, requestCount, sessionCount, concurrency: _, ...features } of windows) {
        const step = advance(state, { startedAt, requestCount, sessionCount, windowMs, features });
        for (const mark of step.marks) await publish(mark);
        state = step.state;
        if (step.marks.length === 0 && state.seenUntil - savedUntil < SAVE_EVERY_WINDOWS * windowMs) continue;
        await saveState(telemetry, windowMs, state);
        savedUntil = state.seenUntil;
      }
    },
  };
}
