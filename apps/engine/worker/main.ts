/**
 * The worker process: opens the device, joins the gateway, and runs the step loop until it is told to end. Started by the
 * supervisor, or by `npx variator worker` on another machine, one per device. A device that cannot run a step ends the process.
 */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { PathError, parsePath } from '@variator/kernels/execution-path';
import { KvPlanError } from '@variator/kernels/kv-plan';
import { type LoadedModel, loadModel } from '@variator/kernels/model';
import { ModelError } from '@variator/kernels/model/model-error';
import { NativeError } from '@variator/kernels/native';
import { keepSayingAlive, watchParent } from '../cli/parent-watch.ts';
import { CANNOT_RUN, FATAL_EXIT_CODE } from '../cli/part.ts';
import { ConfigError } from '../config/config-error.ts';
import { type Config, readConfig } from '../config.ts';
import { LINK_VERSION, type WorkerFrame } from '../fleet/link-frames.ts';
import { cpuDevice } from './cpu-device.ts';
import { cudaDevice } from './cuda-device.ts';
import type { Device } from './device.ts';
import { type GatewayPlace, GatewayRefusal, gatewayLink } from './gateway-link.ts';
import { simulatedDevice } from './simulated-device.ts';
import { StepLoop } from './step-loop.ts';

const DEFAULT_PATH = 'balanced';
const HEARTBEAT_MS = 500;
/** Most of the device's time that calibration may take. */
const CALIBRATION_SHARE_LIMIT = 0.02;

const now = () => performance.timeOrigin + performance.now();
/** Before the first step a fault lies in what was asked for, and starting again would meet it again. */
let isOpening = true;

async function main(): Promise<void> {
  const config = readConfig(process.argv.slice(2));
  if (config.model === null) throw new ConfigError('The worker needs --model.');
  const bootId = randomUUID();
  const device = await openDevice(await loadModel(config.model), config);
  const path = parsePath(config.path ?? DEFAULT_PATH, device.envelope);
  await device.prepare(path);

  const loop = new StepLoop({
    device,
    path,
    workerId: config.workerId,
    bootId,
    calibrationShareLimit: CALIBRATION_SHARE_LIMIT,
    now,
    send: (frame) => link.send(frame),
    log: (line) => console.error(line),
  });
  const link = gatewayLink({
    place: placeOf(config),
    *greeting(): Generator<WorkerFrame> {
      yield {
        type: 'hello',
        version: LINK_VERSION,
        workerId: config.workerId,
        bootId,
        pid: process.pid,
        envelope: device.envelope,
        path: loop.livePath(),
      };
      yield* loop.cachedBlocks();
    },
    onFrame: (frame) => loop.receive(frame),
    onLost: () => loop.forgetGateway(),
    log: (line) => console.log(line),
  });
  watchParent(() => loop.stop());
  const heartbeat = setInterval(() => link.send(loop.heartbeat()), HEARTBEAT_MS);

  isOpening = false;
  keepSayingAlive();
  const linked = link.run();
  await Promise.race([loop.run(), linked]);
  clearInterval(heartbeat);
  await link.end();
  await linked;
  device.close();
}

async function openDevice(model: LoadedModel, config: Config): Promise<Device> {
  const { device, kvMemoryBytes, maxModelLenTokens } = config;
  switch (device.kind) {
    case 'cpu':
      return cpuDevice(model, { ...config, packedWeightsDir: join(config.dataDir, 'packed-weights') });
    case 'cuda':
    case 'cuda-emulated':
      return cudaDevice(model, { ...device, kvMemoryBytes, maxModelLenTokens });
    case 'simulated':
      return simulatedDevice(model, { ...device, maxModelLenTokens });
  }
}

function placeOf({ joinAddress, joinToken, linkPath }: Config): GatewayPlace {
  if (joinAddress === null) return { kind: 'local', socketPath: linkPath };
  if (joinToken === null)
    throw new ConfigError('--join needs the token of the gateway in VARIATOR_JOIN_TOKEN.');
  return { kind: 'remote', ...joinAddress, token: joinToken };
}

main().then(
  () => process.exit(0),
  (error: Error) => {
    const isFinal =
      error instanceof GatewayRefusal ||
      (isOpening &&
        [ConfigError, PathError, ModelError, NativeError, KvPlanError].some((kind) => error instanceof kind));
    console.error(isFinal ? `${CANNOT_RUN}${error.message}` : error.stack);
    process.exit(isFinal ? FATAL_EXIT_CODE : 1);
  },
);
