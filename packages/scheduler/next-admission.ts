/**
 * Which waiting sequence is admitted next, and whom it may push out. Called by compose.ts. Pure.
 *
 * Nobody starves: a queue rank is fixed at submission, at most the handicaps of flex and of a program after it, so only finitely many
 * sequences ever stand before a given one. The first by rank is admitted at the latest as the MOST_PASSED_BY + 1st; while
 * it does not fit nobody else comes in, so that those who run end; and the eldest of all that are open always runs.
 */
import { type OpenSequence, tierOrder } from './open-sequence.ts';
import type { StepTimeFit } from './step-time.ts';
import type { TenantService } from './tenant-service.ts';
import type { WaitingQueue } from './waiting-queue.ts';

/** So many admissions may go by fairness among tenants before one goes by rank again. */
const MOST_PASSED_BY = 7;

export interface AdmissionState {
  readonly running: readonly OpenSequence[];
  readonly waiting: WaitingQueue;
  readonly tenants: TenantService;
  readonly fit: StepTimeFit | null;
  /** Admissions since the first by rank was admitted. */
  passedByCount: number;
}

/**
 * The first by rank; but where it stands there by its tier and not by its age, the sequence of its tier whose tenant has
 * had the least of the device, what it has running now is expected to take counted in.
 */
export function nextAdmission(state: AdmissionState): OpenSequence | null {
  const first = state.waiting.first();
  if (first === null || state.passedByCount >= MOST_PASSED_BY) return first;
  const { serviceTier } = first.spec;
  const rivals: OpenSequence[] = [];
  for (const lane of state.waiting.lanes()) {
    if (tierOrder[lane.serviceTier] < tierOrder[serviceTier]) return first;
    const head = lane.sequences[0];
    if (lane.serviceTier === serviceTier && head !== undefined) rivals.push(head);
  }
  if (rivals.length === 1) return first;
  let least = first;
  let leastMs = servedMs(state, first);
  for (const rival of rivals) {
    const rivalMs = servedMs(state, rival);
    if (rivalMs < leastMs || (rivalMs === leastMs && rival.queueRank < least.queueRank)) {
      least = rival;
      leastMs = rivalMs;
    }
  }
  return least;
}

export function noteAdmission(state: AdmissionState, admitted: OpenSequence): void {
  state.passedByCount = admitted === state.waiting.first() ? 0 : state.passedByCount + 1;
}

/** Running flex sequences that have to make room for one of a higher tier that stands before them, the last first. */
export function displaceable(running: readonly OpenSequence[], candidate: OpenSequence): OpenSequence[] {
  if (candidate.spec.serviceTier === 'flex') return [];
  return running
    .filter((sequence) => sequence.spec.serviceTier === 'flex' && sequence.queueRank > candidate.queueRank)
    .sort((a, b) => b.queueRank - a.queueRank || b.admissionOrder - a.admissionOrder);
}

function servedMs({ tenants, running, fit }: AdmissionState, { spec }: OpenSequence): number {
  let sum = tenants.attainedMs(spec.serviceTier, spec.tenant);
  for (const other of running) {
    if (other.spec.tenant !== spec.tenant || other.spec.serviceTier !== spec.serviceTier) continue;
    sum += tenants.expectedMs(other, fit);
  }
  return sum;
}
