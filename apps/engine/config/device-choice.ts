/** What `--device` may be: the CPU, a CUDA GPU, or a simulated machine with its settings. Called by readConfig. */
import { ConfigError } from './config-error.ts';
import { nameOf, type OptionName } from './options.ts';
import { type SimulatedDeviceName, simulatedMachines } from './simulated-machines.ts';

export type DeviceChoice =
  | { readonly kind: 'cpu'; readonly text: 'cpu' }
  | {
      /** `cuda-emulated`: the CUDA kernels on the CPU, for tests. */
      readonly kind: 'cuda' | 'cuda-emulated';
      readonly text: string;
      /** Of the GPUs that the process may see, in the order of their PCI buses; of the first worker on this machine. */
      readonly ordinal: number;
    }
  | {
      readonly kind: 'simulated';
      readonly name: SimulatedDeviceName;
      /** As it was given. */
      readonly text: string;
      /** Null: of the model that is served. */
      readonly parameterCount: number | null;
      readonly kvBytesPerToken: number | null;
      /** Spread of a step's log time around the model. */
      readonly noise: number;
    };

/** @throws ConfigError */
export function deviceChoice(name: OptionName, text: string): DeviceChoice {
  if (text === 'cpu') return { kind: 'cpu', text };
  const [, kind, ordinal] = /^(cuda|cuda-emulated):(\d{1,2})$/.exec(text) ?? [];
  if (kind === 'cuda' || kind === 'cuda-emulated') return { kind, text, ordinal: Number(ordinal) };
  const [, machine = '', rest = ''] = /^simulated:(\w+)((?:,\w+=[\w.+-]+)*)$/.exec(text) ?? [];
  if (!Object.hasOwn(simulatedMachines, machine)) {
    const known = Object.keys(simulatedMachines).map((each) => `simulated:${each}`);
    throw new ConfigError(`${nameOf(name)} must be cpu, cuda:N or ${known.join(' or ')}, not "${text}".`);
  }
  const settings: Record<string, { least: number; most: number; value: number | null }> = {
    parameters: { least: 1e5, most: 1e12, value: null },
    kvBytesPerToken: { least: 1, most: 1e8, value: null },
    noise: { least: 0, most: 0.5, value: 0.03 },
  };
  for (const each of rest.split(',').slice(1)) {
    const [setting = '', value] = each.split('=');
    const known = Object.hasOwn(settings, setting) ? settings[setting] : undefined;
    if (known === undefined)
      throw new ConfigError(
        `${nameOf(name)} has no setting "${setting}"; it has ${Object.keys(settings).join(', ')}.`,
      );
    known.value = Number(value);
    if (!(known.value >= known.least && known.value <= known.most))
      throw new ConfigError(
        `${setting} of ${nameOf(name)} must be a number from ${known.least} to ${known.most}, not "${value}".`,
      );
  }
  return {
    kind: 'simulated',
    name: machine as SimulatedDeviceName,
    text,
    parameterCount: settings.parameters?.value ?? null,
    kvBytesPerToken: settings.kvBytesPerToken?.value ?? null,
    noise: settings.noise?.value ?? 0,
  };
}

/** The device of one of several workers on this machine: each has a GPU of its own, counted on from the first one's. */
export function deviceOfWorker(device: DeviceChoice, workerIndex: number): string {
  return device.kind === 'cuda' || device.kind === 'cuda-emulated'
    ? `${device.kind}:${device.ordinal + workerIndex}`
    : device.text;
}
