/** Table `model_fits`: one row per published step-time fit. Written by the optimizer's service. */
import type { StepTimeFit } from '@variator/scheduler/step-time';

export interface FitRow extends Omit<StepTimeFit, 'betaMs'> {
  /** StepTimeFit.betaMs as JSON. */
  readonly betaMs: string;
}
