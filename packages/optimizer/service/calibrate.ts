/**
 * The round that has kernels timed whose steps leave batch shapes unseen: a few synthetic cases at a time, on a worker that
 * runs them when it is idle or has slack. Called by main.ts beside the other rounds, since a call may wait for minutes.
 */
import { calibrationCases, needsCalibration } from '@variator/optimizer/calibration-cases';
import { priorFor } from '@variator/optimizer/prior-for';
import type { Gateway } from './gateway.ts';
import type { FitLearner } from './learn-fits.ts';

export interface Calibrator {
  round(now: number): Promise<void>;
}

const CASES_A_CALL = 12;
/** After all of them ran, a machine that changed is asked again. */
const AGAIN_AFTER_MS = 6 * 3_600_000;

export function createCalibrator(options: {
  readonly gateway: Gateway;
  readonly learner: FitLearner;
  readonly log: (line: string) => void;
}): Calibrator {
  const { gateway, learner, log } = options;
  /** Next case by worker and kernels; what has been asked for is not asked again soon. */
  const progress = new Map<string, { nextCase: number; doneAt: number | null }>();

  return {
    async round(now) {
      const workers = await gateway.workers.list.query();
      const isWanted = workers.some(({ envelope }) =>
        learner.kernelsOf(envelope).some(({ samples }) => needsCalibration(samples)),
      );
      // Nearly always: then there is no need to ask for the rest.
      if (!isWanted) return;
      const [policy, rollouts] = await Promise.all([
        gateway.objectives.get.query(),
        gateway.rollouts.list.query({ limit: 20 }),
      ]);
      if (policy.calibrationShare === 0) return;
      for (const { workerId, envelope, path } of workers) {
        // A canary compares device time: nothing else runs beside it.
        if (rollouts.some((one) => one.workerId === workerId && isUnderWay(one.state))) continue;
        for (const kernels of learner.kernelsOf(envelope)) {
          if (!needsCalibration(kernels.samples)) continue;
          const key = `${workerId} ${kernels.kernelsId}`;
          const before = progress.get(key) ?? { nextCase: 0, doneAt: null };
          if (before.doneAt !== null && now - before.doneAt < AGAIN_AFTER_MS) continue;
          const start = before.doneAt === null ? before.nextCase : 0;
          const all = calibrationCases(envelope, kernels.fit ?? priorFor(envelope, kernels.path, []));
          const cases = all.slice(start, start + CASES_A_CALL);
          const isLast = start + cases.length >= all.length;
          progress.set(key, { nextCase: start + cases.length, doneAt: isLast ? now : null });
          if (cases.length === 0) continue;
          const widest = {
            ...path,
            linear: kernels.path.linear,
            tokenBudget: envelope.maxTokenBudget,
            maxRunningCount: envelope.maxRunningCount,
          };
          const { stepCount, deviceMs } = await gateway.calibration.run.mutate({
            workerId,
            path: widest,
            cases,
          });
          log(
            `calibrated ${widest.linear}: ${stepCount} of ${cases.length} cases, ${deviceMs.toFixed(0)} device ms`,
          );
          // One call a round, so that what it taught is fitted and the fastest kernels come first.
          return;
        }
      }
    },
  };
}

export const isUnderWay = (state: string): boolean => state === 'warming' || state === 'canary';
