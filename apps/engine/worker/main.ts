/**
 * The worker process: opens the device, dials the gateway, and runs the step loop until it is told to end. Started by the
 * supervisor, one per device. A lost link is dialled again; a device that cannot run a step ends the process.
 */
import { randomUUID } from 'node:crypto';
import { connect } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { PathError, parsePath } from '@variator/kernels/execution-path';
import { KvPlanError } from '@variator/kernels/kv-plan';
import { loadModel } from '@variator/kernels/model';
import { ModelError } from '@variator/kernels/model/model-error';
import { NativeError } from '@variator/kernels/native';
import { keepSayingAlive, watchParent } from '../cli/parent-watch.ts';
import { CANNOT_RUN, FATAL_EXIT_CODE } from '../cli/part.ts';
import { ConfigError, readConfig } from '../config.ts';
import { type FrameSocket, frameSocket } from '../fleet/frame-socket.ts';
import { type GatewayFrame, LINK_VERSION, type WorkerFrame } from '../fleet/link-frames.ts';
import { cpuDevice } from './cpu-device.ts';
import { StepLoop } from './step-loop.ts';

const DEFAULT_PATH = 'balanced';
const HEARTBEAT_MS = 500;
const REDIAL_MS = 100;
/** Most of the device's time that calibration may take. */
const CALIBRATION_SHARE_LIMIT = 0.02;

const now = () => performance.timeOrigin + performance.now();
/** Before the first step a fault lies in what was asked for, and starting again would meet it again. */
let isOpening = true;

async function main(): Promise<void> {
  const config = readConfig(process.argv.slice(2));
  if (config.model === null) throw new ConfigError('The worker needs --model.');
  const bootId = randomUUID();
  const device = cpuDevice(await loadModel(config.model), config);
  const path = parsePath(config.path ?? DEFAULT_PATH, device.envelope);
  await device.prepare(path);

  let link: FrameSocket<WorkerFrame> | null = null;
  let isEnding = false;
  const loop = new StepLoop({
    device,
    path,
    workerId: config.workerId,
    bootId,
    calibrationShareLimit: CALIBRATION_SHARE_LIMIT,
    now,
    send: (frame) => link?.send(frame),
  });
  watchParent(() => {
    isEnding = true;
    link?.close();
    loop.stop();
  });
  const heartbeat = setInterval(() => link?.send(loop.heartbeat()), HEARTBEAT_MS);

  const dial = (): Promise<void> =>
    new Promise((ended) => {
      const socket = connect(config.linkPath);
      const opened = frameSocket<GatewayFrame, WorkerFrame>(
        socket,
        (frame) => loop.receive(frame),
        () => {
          if (link === opened) {
            link = null;
            loop.forgetGateway();
          }
          ended();
        },
      );
      socket.once('connect', () => {
        link = opened;
        opened.send({
          type: 'hello',
          version: LINK_VERSION,
          workerId: config.workerId,
          bootId,
          pid: process.pid,
          envelope: device.envelope,
          path: loop.livePath(),
        });
        for (const frame of loop.cachedBlocks()) opened.send(frame);
      });
    });
  isOpening = false;
  keepSayingAlive();
  const dialling = (async () => {
    while (!isEnding) {
      await dial();
      if (!isEnding) await pause(REDIAL_MS);
    }
  })();

  await loop.run();
  isEnding = true;
  clearInterval(heartbeat);
  const last: FrameSocket<WorkerFrame> | null = link;
  await (last as FrameSocket<WorkerFrame> | null)?.flush();
  (last as FrameSocket<WorkerFrame> | null)?.close();
  await dialling;
  device.close();
}

main().then(
  () => process.exit(0),
  (error: Error) => {
    const isFinal =
      isOpening &&
      [ConfigError, PathError, ModelError, NativeError, KvPlanError].some((kind) => error instanceof kind);
    console.error(isFinal ? `${CANNOT_RUN}${error.message}` : error.stack);
    process.exit(isFinal ? FATAL_EXIT_CODE : 1);
  },
);
