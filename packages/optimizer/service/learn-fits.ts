/**
 * The round that reads measured steps, fits each kernel's step times and publishes what changed. Called by main.ts every
 * few seconds. Keeps the samples and the current fits for the other rounds; ClickHouse and the gateway keep them for good.
 */
import type { TelemetryClient } from '@variator/clickhouse/client';
import { insertRows } from '@variator/clickhouse/insert';
import { fitRow } from '@variator/clickhouse/queries/fits';
import { stepSamples } from '@variator/clickhouse/queries/step-samples';
import { worthTrying } from '@variator/kernels/catalogue';
import { type Envelope, type ExecutionPath, kernelsId } from '@variator/kernels/execution-path';
import { calibrationCases, featuresOfShape } from '@variator/optimizer/calibration-cases';
import { fitStepTime, LEAST_SAMPLE_COUNT } from '@variator/optimizer/fit-step-time';
import { priorFor, type Relative } from '@variator/optimizer/prior-for';
import { driftAfter, NO_DRIFT, type ResidualDrift } from '@variator/optimizer/residual-drift';
import { bucketOf, isQuiet, keepSamples, type StepSample } from '@variator/optimizer/step-sample';
import { bandAfter, freshBand, halfWidthOf, type StepTimeBand } from '@variator/optimizer/step-time-band';
import { predictMs, type StepFeatures, type StepTimeFit } from '@variator/scheduler/step-time';
import type { Gateway } from './gateway.ts';

export interface LearnedKernels {
  readonly envelope: Envelope;
  /** A path with these kernels; its limits are of no matter. */
  readonly path: ExecutionPath;
  readonly kernelsId: string;
  samples: StepSample[];
  fit: StepTimeFit | null;
  /** What came of the fit's predictions; disturbed steps say nothing of it. */
  band: StepTimeBand;
  /** Whether the machine still takes the same time, as judged by one fit held still; null before there is one. */
  drift: { judge: StepTimeFit; state: ResidualDrift } | null;
  /** Steps up to here were read. */
  readUntil: number;
  newStepCount: number;
  nextFitAt: number;
  /** Samples when its error was last told. */
  toldAtCount: number;
}

export interface FitLearner {
  round(now: number): Promise<void>;
  /** Of this worker's device and model; fits without a measured step are left out. */
  fitsFor(envelope: Envelope): StepTimeFit[];
  kernelsOf(envelope: Envelope): LearnedKernels[];
}

const HISTORY_MS = 24 * 3_600_000;
const MOST_FIRST_STEPS = 20_000;
const MOST_STEPS = 2000;
/** Rows may arrive late by the recorder's retries. */
const OVERLAP_MS = 5000;
const LEAST_NEW_STEPS = 10;
/** A fit from fewer samples is no judge of the machine. */
const LEAST_FOR_DRIFT = 64;
/** Fitting takes at most this share of one core. */
const FIT_SHARE = 0.003;
/** Predictions that moved by less are not news. */
const LEAST_NEWS = 0.03;
/** Nor is a band that is wider or narrower by less, as a log ratio. */
const LEAST_BAND_NEWS = 0.2;

export function createFitLearner(options: {
  readonly gateway: Gateway;
  readonly telemetry: TelemetryClient;
  readonly log: (line: string) => void;
}): FitLearner {
  const { gateway, telemetry, log } = options;
  const learned = new Map<string, LearnedKernels>();
  const keyOf = (envelope: Envelope, kernels: string): string =>
    `${envelope.deviceKind} ${envelope.modelHash} ${kernels}`;
  const kernelsOf = (envelope: Envelope): LearnedKernels[] =>
    [...learned.values()].filter(
      (one) =>
        one.envelope.deviceKind === envelope.deviceKind && one.envelope.modelHash === envelope.modelHash,
    );

  async function readSteps(one: LearnedKernels, now: number): Promise<void> {
    const { deviceKind, modelHash } = one.envelope;
    const isFirst = one.readUntil === 0;
    const steps = await stepSamples(telemetry, {
      deviceKind,
      modelHash,
      kernelsId: one.kernelsId,
      fromMs: isFirst ? now - HISTORY_MS : one.readUntil - OVERLAP_MS,
      toMs: now + 1,
      limit: isFirst ? MOST_FIRST_STEPS : MOST_STEPS,
    });
    const known = new Set(one.samples.map((sample) => `${sample.at} ${sample.deviceMs}`));
    const added = steps.filter((step) => !known.has(`${step.at} ${step.deviceMs}`));
    one.newStepCount += added.filter((step) => step.at > one.readUntil).length;
    // Only a fit that has not seen these steps can be judged by them.
    const { fit } = one;
    if (!isFirst && fit !== null && fit.sampleCount >= LEAST_SAMPLE_COUNT) {
      const unseen = added
        .filter((step) => step.at > one.readUntil && isQuiet(step))
        .sort((a, b) => a.at - b.at);
      one.band = bandAfter(
        one.band,
        unseen.map((step) => Math.log(step.deviceMs / predictMs(fit, step))),
      );
    }
    one.samples = keepSamples([...one.samples, ...added]);
    watchMachine(one, added, now);
    one.readUntil = Math.max(one.readUntil, ...steps.map((step) => step.at));
  }

  /** The same steps take another time than they did: what was measured before is of another machine. */
  function watchMachine(one: LearnedKernels, added: readonly StepSample[], now: number): void {
    const { fit } = one;
    if (fit === null || fit.sampleCount < LEAST_FOR_DRIFT) return;
    one.drift ??= { judge: fit, state: NO_DRIFT };
    const { judge, state } = one.drift;
    const steps = added
      .filter((step) => step.at > one.readUntil && isQuiet(step))
      .sort((a, b) => a.at - b.at)
      .map((step) => ({
        at: step.at,
        shape: bucketOf(step),
        logRatio: Math.log(step.deviceMs / predictMs(judge, step)),
      }));
    const { drift, alarm } = driftAfter(state, steps);
    one.drift = { judge, state: drift };
    if (alarm === null) return;
    one.samples = one.samples.filter((sample) => sample.at >= alarm.since);
    one.band = freshBand;
    one.drift = null;
    one.newStepCount = Math.max(one.newStepCount, LEAST_NEW_STEPS);
    one.nextFitAt = now;
    const percent = (100 * Math.abs(Math.expm1(alarm.logRatio))).toFixed(0);
    const change = alarm.logRatio > 0 ? 'longer' : 'shorter';
    log(
      `steps of ${one.path.linear} take ${percent} % ${change} than they did: fitted anew from those since`,
    );
  }

  function refit(one: LearnedKernels, relatives: readonly Relative[], now: number): StepTimeFit {
    const startedAt = performance.now();
    const fit = fitStepTime({
      samples: one.samples,
      prior: priorFor(one.envelope, one.path, relatives),
      deviceKind: one.envelope.deviceKind,
      modelHash: one.envelope.modelHash,
      kernelsId: one.kernelsId,
      now,
      logBand90: halfWidthOf(one.band),
    });
    one.nextFitAt = now + (performance.now() - startedAt) / FIT_SHARE;
    one.newStepCount = 0;
    return fit;
  }

  return {
    kernelsOf,
    fitsFor: (envelope) =>
      kernelsOf(envelope).flatMap(({ fit }) => (fit !== null && fit.sampleCount > 0 ? [fit] : [])),

    async round(now) {
      const workers = await gateway.workers.list.query();
      const published = await gateway.fits.list.query();
      for (const { envelope, path } of workers) {
        // What runs has to be known, also where somebody chose what no search would.
        for (const linear of new Set([path.linear, ...worthTrying(envelope.linearVariants)])) {
          const withKernels = { ...path, linear };
          const key = keyOf(envelope, kernelsId(withKernels));
          if (learned.has(key)) continue;
          learned.set(key, {
            envelope,
            path: withKernels,
            kernelsId: kernelsId(withKernels),
            samples: [],
            fit: null,
            band: freshBand,
            drift: null,
            readUntil: 0,
            newStepCount: 0,
            nextFitAt: 0,
            toldAtCount: 0,
          });
        }
      }
      for (const one of learned.values()) {
        await readSteps(one, now);
        const mirrored = published.find(
          (fit) => fit.kernelsId === one.kernelsId && fit.modelHash === one.envelope.modelHash,
        );
        const isDue = one.fit === null || (one.newStepCount >= LEAST_NEW_STEPS && now >= one.nextFitAt);
        const relatives = kernelsOf(one.envelope).flatMap(({ path, fit }) => (fit ? [{ path, fit }] : []));
        const fit = isDue ? refit(one, relatives, now) : one.fit;
        if (fit === null) continue;
        if (one.fit === null || isNews(one.fit, fit, one.envelope)) {
          // Without a measured step it is the roofline: good enough to plan by, not worth a row.
          if (fit.sampleCount > 0) await insertRows(telemetry, 'model_fits', [fitRow(fit)], fit.fitId);
          one.fit = fit;
          if (fit.sampleCount >= 2 * Math.max(LEAST_SAMPLE_COUNT, one.toldAtCount)) {
            log(fitInWords(one, fit));
            one.toldAtCount = fit.sampleCount;
          }
        }
        const isMirrored = mirrored !== undefined && mirrored.fitId === one.fit.fitId;
        const isOlder = mirrored !== undefined && mirrored.sampleCount > 0 && one.fit.sampleCount === 0;
        if (!isMirrored && !isOlder) await gateway.fits.publish.mutate(one.fit);
      }
    },
  };
}

/** Whether a fit predicts the calibration shapes otherwise than the last one did, or knows its error better. */
function isNews(before: StepTimeFit, after: StepTimeFit, envelope: Envelope): boolean {
  if (before.fitId === after.fitId) return false;
  if ((before.heldOutMape === null) !== (after.heldOutMape === null)) return true;
  if (after.sampleCount > 1.5 * before.sampleCount) return true;
  if (Math.abs(Math.log((after.logBand90 ?? 1) / (before.logBand90 ?? 1))) > LEAST_BAND_NEWS) return true;
  const shapes: StepFeatures[] = calibrationCases(envelope, before).map(featuresOfShape);
  return shapes.some(
    (shape) => Math.abs(predictMs(after, shape) / predictMs(before, shape) - 1) > LEAST_NEWS,
  );
}

function fitInWords({ path }: LearnedKernels, fit: StepTimeFit): string {
  const error =
    fit.heldOutMape === null
      ? 'none held out yet'
      : `off by ${(100 * fit.heldOutMape).toFixed(1)} % on ${fit.heldOutCount} held out`;
  return `fit ${fit.fitId} of ${path.linear}, ${path.threadCount} threads: ${fit.sampleCount} steps, ${error}`;
}
