/**
 * `npx variator worker --join HOST:PORT`: workers of this machine for the gateway of another, started again when they die and
 * ended with one Ctrl-C. Called by main.ts. The machine needs the model, which is compared by its content, and nothing else.
 */

import { ConfigError } from '../config/config-error.ts';
import { deviceOfWorker } from '../config/device-choice.ts';
import { type Config, environmentForParts, readConfig } from '../config.ts';
import { endOfSupervisor } from './end-signals.ts';
import { modelPlace } from './model-place.ts';
import { type Part, startPart } from './part.ts';
import { workerShares } from './worker-shares.ts';

const STOP_LIMIT_MS = 5000;

export async function workerCommand(argv: readonly string[], root: string): Promise<number> {
  const asked = readConfig(argv);
  if (asked.joinAddress === null)
    throw new ConfigError('A worker needs the gateway to join: npx variator worker --join HOST:PORT.');
  if (asked.joinToken === null)
    throw new ConfigError('A worker needs the token of the gateway it joins in VARIATOR_JOIN_TOKEN.');
  const workerCount = Math.max(1, asked.workerCount);
  const { line, ...shares } = workerShares({ ...asked, workerCount });
  const config: Config = Object.freeze({ ...asked, ...shares, workerCount });
  if (line !== '') console.log(line);

  const ending = endOfSupervisor();
  const stopping = new AbortController();
  ending.then(() => stopping.abort());
  const model = await modelPlace(config, root, stopping.signal);
  const parts: Part[] = [];
  const reason = await new Promise<string>((resolve) => {
    for (let index = 0; index < workerCount; index += 1) {
      const name = workerCount === 1 ? config.workerId : `${config.workerId}-${index}`;
      const flags = [
        '--import',
        'tsx',
        'apps/engine/worker/main.ts',
        ...flagsFor(config, model),
        '--device',
        deviceOfWorker(config.device, index),
        '--worker-id',
        name,
      ];
      const spec = {
        name,
        command: process.execPath,
        args: () => flags,
        cwd: root,
        env: { ...environmentForParts(), VARIATOR_JOIN_TOKEN: config.joinToken ?? '' },
        isWatched: true as const,
      };
      parts.push(startPart(spec, (text) => console.log(`[${name}] ${text}`), resolve));
    }
    ending.then(() => resolve(''));
  });
  await Promise.all(parts.map((part) => part.stop(STOP_LIMIT_MS)));
  if (reason === '') return 0;
  console.error(reason);
  return 1;
}

function flagsFor(config: Config, model: string): string[] {
  const { joinAddress, threadCount, kvMemoryBytes, maxModelLenTokens, path } = config;
  const host = joinAddress?.host ?? '';
  const flags = ['--model', model, '--threads', String(threadCount)];
  if (Number.isFinite(kvMemoryBytes)) flags.push('--kv-memory', `${kvMemoryBytes}B`);
  flags.push('--join', `${host.includes(':') ? `[${host}]` : host}:${joinAddress?.port}`);
  if (maxModelLenTokens !== null) flags.push('--max-model-len', String(maxModelLenTokens));
  if (path !== null) flags.push('--path', path);
  return flags;
}
