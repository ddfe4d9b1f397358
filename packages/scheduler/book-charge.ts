/** Charges a step's measured time to the accounts of its sequences, by kind. Called by settle.ts. */
import type { StepCharge } from './batch.ts';
import { sequenceAt } from './compose.ts';
import type { OpenSequence } from './open-sequence.ts';
import type { StepInFlight } from './settle.ts';
import { chargedPerTokenMs, chargeStep } from './step-time.ts';

const chargedAs = {
  prefill: 'prefillDeviceMs',
  decode: 'decodeDeviceMs',
  recompute: 'recomputeDeviceMs',
} as const;

/** Adds each entry's share of the measured time to its sequence's account, and returns the sums by kind. */
export function bookCharge(
  { batch, composition, fit }: StepInFlight,
  deviceMs: number,
  accepted: readonly number[],
  charged: (sequence: OpenSequence, deviceMs: number) => void,
): StepCharge {
  const charge = {
    prefillDeviceMs: 0,
    decodeDeviceMs: 0,
    speculationWasteDeviceMs: 0,
    recomputeDeviceMs: 0,
  };
  const shares = chargeStep(batch.entries, deviceMs, fit);
  const tokenMs = chargedPerTokenMs(batch.features, deviceMs, fit);
  for (const [index, entry] of batch.entries.entries()) {
    const sequence = sequenceAt(composition, index);
    const { account, endWith } = sequence;
    const shareMs = shares[index] ?? 0;
    const isWaste = entry.kind === 'decode' && endWith !== null;
    // A guess that was wrong costs what one token more did; the rest of the step was needed anyway.
    const wrongCount = (entry.draftCount ?? 0) - (accepted[index] ?? 0);
    const wasteMs = isWaste ? shareMs : Math.min(shareMs, wrongCount * tokenMs);
    const kind = chargedAs[entry.kind];
    charge.speculationWasteDeviceMs += wasteMs;
    account.speculationWasteDeviceMs += wasteMs;
    charge[kind] += shareMs - wasteMs;
    account[kind] += shareMs - wasteMs;
    charged(sequence, shareMs);
    if (fit !== null && account.fitId !== fit.fitId) {
      account.fitId = fit.fitId;
      account.fitCount += 1;
    }
  }
  return charge;
}
