import { expect, test } from 'vitest';
import type { DeviceTelemetry } from '../fleet/link-frames.ts';
import { DeviceWatch } from './device-watch.ts';

const told = (energyJoules: number | null, powerWatts = 300): DeviceTelemetry => ({
  smClockMhz: 1980,
  memoryClockMhz: 2619,
  powerWatts,
  energyJoules,
  temperatureCelsius: 50,
  memoryUsedBytes: 1e9,
  memoryBytes: 80e9,
});
const soon = () => new Promise((resolve) => setImmediate(resolve));

/** A device whose driver gives these answers, one a question; an Error: it fails. */
function watched(answers: (DeviceTelemetry | Error)[]) {
  const seen = { askedCount: 0 };
  const watch = new DeviceWatch({
    telemetry: async () => {
      const answer = answers[seen.askedCount];
      seen.askedCount += 1;
      if (answer === undefined || answer instanceof Error) throw answer;
      return answer;
    },
  });
  const look = async (at: number) => {
    watch.look(at);
    await soon();
  };
  return { watch, seen, look };
}

test('it asks once a second at most, and the newest answer is kept', async () => {
  const { watch, seen, look } = watched([told(10), told(20, 400)]);
  expect(watch.latest()).toBeNull();
  await look(0);
  await look(500);
  await look(999);
  expect(seen.askedCount).toBe(1);
  expect(watch.latest()?.powerWatts).toBe(300);
  await look(1000);
  expect(seen.askedCount).toBe(2);
  expect(watch.latest()?.powerWatts).toBe(400);
});

test('energy goes to one row once, so that rows add up to what the driver counted', async () => {
  const { watch, look } = watched([told(100), told(400), told(450), told(5), told(25)]);
  expect(watch.takeStepEnergy()).toEqual({ energyJoules: 0, powerWatts: 0, smClockMhz: 0 });
  await look(0);
  // Where it began is nobody's.
  expect(watch.takeStepEnergy()).toEqual({ energyJoules: 0, powerWatts: 300, smClockMhz: 1980 });
  await look(1000);
  await look(2000);
  expect(watch.takeStepEnergy().energyJoules).toBe(350);
  expect(watch.takeStepEnergy().energyJoules).toBe(0);
  // The driver was loaded anew.
  await look(3000);
  await look(4000);
  expect(watch.takeStepEnergy().energyJoules).toBe(20);
});

test('a driver that says nothing or fails leaves nothing known, and is asked again', async () => {
  const { watch, look } = watched([told(null), new Error('no driver'), told(7)]);
  await look(0);
  expect(watch.takeStepEnergy().energyJoules).toBe(0);
  await look(1000);
  expect(watch.latest()).toBeNull();
  await look(2000);
  expect(watch.latest()?.energyJoules).toBe(7);
  new DeviceWatch({}).look(0);
});
