/** `npx variator status`: what a running engine does now, from its tRPC API. */

import { ConfigError } from '../config/config-error.ts';
import { readConfig } from '../config.ts';
import type { DeviceTelemetry } from '../fleet/link-frames.ts';
import { type AdminClient, adminClient } from './admin-client.ts';
import { table } from './table.ts';

export async function statusCommand(argv: readonly string[]): Promise<number> {
  const { client } = runningEngine(argv);
  const [summary, workers] = await asked(() =>
    Promise.all([client.overview.summary.query({ windowMs: 300_000 }), client.workers.list.query()]),
  );
  const value = (number: number | null, unit: string) =>
    number === null ? 'no traffic' : `${number.toFixed(1)} ${unit}`;
  console.log(
    table(
      ['of the last 5 min', ''],
      [
        ['ready', summary.isReady ? 'yes' : `no: ${summary.unreadyReason}`],
        ['model', summary.modelId],
        ['regime', summary.regimeName || 'not known yet'],
        ['output', value(summary.outputTokensPerSecond, 'tok/s')],
        ['TTFT p95', value(summary.ttftP95Ms, 'ms')],
        ['ITL p95', value(summary.itlP95Ms, 'ms')],
        [
          'cost',
          summary.costUsdPerMillionTokens === null
            ? 'no traffic'
            : `$${summary.costUsdPerMillionTokens.toFixed(3)} / M tokens`,
        ],
        ['telemetry', summary.telemetryFault || 'ok'],
      ],
    ),
  );
  console.log();
  console.log(
    table(
      ['worker', 'device', 'path', 'tokens/step', 'batch', 'running', 'waiting'],
      workers.map(({ workerId, envelope, pathId, path, runningCount, waitingCount }) =>
        [
          workerId,
          envelope.deviceName,
          pathId,
          path.tokenBudget,
          path.maxRunningCount,
          runningCount,
          waitingCount,
        ].map(String),
      ),
    ),
  );
  const gpus = workers.flatMap(({ workerId, deviceTelemetry: told }) =>
    told === null ? [] : [[workerId, ...gpuFigures(told)]],
  );
  if (gpus.length > 0) {
    console.log();
    console.log(table(['worker', 'SM clock', 'power', 'energy', 'memory', 'temperature'], gpus));
  }
  return summary.isReady ? 0 : 1;
}

function gpuFigures(told: DeviceTelemetry): string[] {
  const known = (value: number | null, unit: string, scale = 1) =>
    value === null ? 'not told' : `${Math.round(value / scale)} ${unit}`;
  return [
    known(told.smClockMhz, 'MHz'),
    known(told.powerWatts, 'W'),
    known(told.energyJoules, 'kJ', 1000),
    `${known(told.memoryUsedBytes, 'MiB', 1024 ** 2)} of ${known(told.memoryBytes, 'MiB', 1024 ** 2)}`,
    known(told.temperatureCelsius, '°C'),
  ];
}

/** The engine that this shell's flags and variables mean. */
export function runningEngine(argv: readonly string[]): { client: AdminClient; url: string } {
  const { host, adminPort, adminKey } = readConfig(argv);
  const url = `http://${host.includes(':') ? `[${host}]` : host}:${adminPort}`;
  return { client: adminClient(url, 'command-line', adminKey), url };
}

/** @throws ConfigError with a sentence where nothing answers */
export async function asked<Answer>(ask: () => Promise<Answer>): Promise<Answer> {
  try {
    return await ask();
  } catch (error) {
    const { message } = error as Error;
    throw new ConfigError(
      /fetch failed|ECONNREFUSED/.test(message)
        ? 'No engine answers; start one with npm start, or say where it is with --host and --admin-port.'
        : message,
    );
  }
}
