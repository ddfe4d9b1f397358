/**
 * The detector's state as a row of `regime_states`, and back. Called by mark-regimes.ts. A state that another version of
 * the detector wrote is no state of this one's: it says so, and the detector starts anew.
 */
import type { TelemetryClient } from '@variator/clickhouse/client';
import { insertRows } from '@variator/clickhouse/insert';
import { regimeState } from '@variator/clickhouse/queries/regime-state';
import type { RegimeState } from '@variator/optimizer/regime';
import { FEATURES, type FeatureName } from '@variator/optimizer/regime-features';
import { z } from 'zod';

/** Changes with what the detector keeps and with how its numbers are meant. */
export const DETECTOR = 'newest-means-1';

const perFeature = <Item extends z.ZodType>(item: Item) => z.array(item).length(FEATURES.length);
const values = perFeature(z.number().nullable());
const numbers = perFeature(z.number());
const feature = z.enum(FEATURES);
const features = z.record(feature, z.number().nullable()) as unknown as z.ZodType<
  Record<FeatureName, number | null>
>;

const schema: z.ZodType<RegimeState> = z.strictObject({
  reference: z.strictObject({
    windowCount: z.number(),
    sessionCount: z.number(),
    mean: values,
    variance: numbers,
    smoothed: numbers,
    smoothedVariance: numbers,
  }),
  recent: z.array(z.strictObject({ startedAt: z.number(), sessionCount: z.number(), values })),
  isSuspected: z.boolean(),
  current: z
    .strictObject({
      regimeId: z.string(),
      name: z.string(),
      startedAt: z.number(),
      detectedAt: z.number(),
      isConfirmed: z.boolean(),
      isRecalled: z.boolean(),
      features,
      risenFeature: z.union([feature, z.literal('')]),
    })
    .nullable(),
  library: z.array(
    z.strictObject({
      regimeId: z.string(),
      name: z.string(),
      mean: values,
      variance: numbers,
      windowCount: z.number(),
      lastSeenAt: z.number(),
      formerIds: z.array(z.string()),
    }),
  ),
  seenUntil: z.number(),
});

/** @throws Error where it is no state of this detector */
export const parseState = (text: string): RegimeState => schema.parse(JSON.parse(text));

export async function saveState(
  telemetry: TelemetryClient,
  windowMs: number,
  state: RegimeState,
): Promise<void> {
  const row = { savedAt: state.seenUntil, detector: DETECTOR, windowMs, state: JSON.stringify(state) };
  await insertRows(telemetry, 'regime_states', [row], `${windowMs} ${state.seenUntil}`);
}

export async function loadState(telemetry: TelemetryClient, windowMs: number): Promise<RegimeState | null> {
  const text = await regimeState(telemetry, { detector: DETECTOR, windowMs });
  return text === null ? null : parseState(text);
}
