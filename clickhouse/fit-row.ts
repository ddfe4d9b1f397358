/** Table `model_fits`: one row per published step-time fit. Written by the optimizer's service. */
import type { StepTimeFit } from '@variator/scheduler/step-time';

export interface FitRow extends Omit<StepTimeFit, 'betaMs' | 'residuals'> {
  /** StepTimeFit.betaMs as JSON. */
  readonly betaMs: string;
  /** StepTimeFit.residuals as JSON; empty where it has none. */
  readonly residuals: string;
}
