/**
 * What a device's driver says of it, asked once a second at most and never in a step's way: the newest for the heartbeat,
 * and the energy of each step row. Owned by the step loop. A driver that fails to answer is asked again later.
 */
import type { DeviceTelemetry } from '../fleet/link-frames.ts';
import type { Device } from './device.ts';

const LEAST_GAP_MS = 1000;

/** Of a step row; 0 where the device does not say. */
export interface StepEnergy {
  /** What the device took since the row before that says any, its pauses included: rows add up to all of it. */
  readonly energyJoules: number;
  readonly powerWatts: number;
  readonly smClockMhz: number;
}

export class DeviceWatch {
  readonly #device: Pick<Device, 'telemetry'>;
  #latest: DeviceTelemetry | null = null;
  #askedAt = Number.NEGATIVE_INFINITY;
  #isAsking = false;
  #unchargedJoules = 0;

  constructor(device: Pick<Device, 'telemetry'>) {
    this.#device = device;
  }

  latest(): DeviceTelemetry | null {
    return this.#latest;
  }

  /** Asks where it is time to. */
  look(now: number): void {
    if (this.#device.telemetry === undefined || this.#isAsking || now - this.#askedAt < LEAST_GAP_MS) return;
    this.#askedAt = now;
    this.#isAsking = true;
    this.#device
      .telemetry()
      .then(
        (told) => this.#take(told),
        () => {
          this.#latest = null;
        },
      )
      .finally(() => {
        this.#isAsking = false;
      });
  }

  takeStepEnergy(): StepEnergy {
    const energyJoules = this.#unchargedJoules;
    this.#unchargedJoules = 0;
    return {
      energyJoules,
      powerWatts: this.#latest?.powerWatts ?? 0,
      smClockMhz: this.#latest?.smClockMhz ?? 0,
    };
  }

  #take(told: DeviceTelemetry): void {
    const before = this.#latest?.energyJoules ?? null;
    // A driver that was loaded anew counts from nothing.
    if (before !== null && told.energyJoules !== null)
      this.#unchargedJoules += Math.max(0, told.energyJoules - before);
    this.#latest = told;
  }
}
