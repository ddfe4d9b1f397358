/**
 * `npm start`: starts ClickHouse, gateway, workers, optimizer and dashboard in that order, watches them, and ends them in
 * the reverse order on one Ctrl-C. Called by main.ts. Serves nothing itself, so that a fault in a part never reaches it.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { assertSafeToListen } from '../api/safe-to-listen.ts';
import { deviceOfWorker } from '../config/device-choice.ts';
import type { HostPort } from '../config/values.ts';
import { type Config, environmentForParts, readConfig } from '../config.ts';
import { type EmbeddedClickHouse, embeddedClickHouse } from './embedded-clickhouse.ts';
import { endOfSupervisor, secondSignal } from './end-signals.ts';
import { joinToken } from './join-token.ts';
import { modelPlace } from './model-place.ts';
import { type Part, startPart } from './part.ts';
import { dashboardHost, linkPlace, makeDataFolder, withFreePorts } from './places.ts';
import { workerShares } from './worker-shares.ts';

interface Launch {
  readonly name: string;
  readonly script: string;
  readonly flags: readonly string[];
  /** For the first start alone. */
  readonly firstFlags?: readonly string[];
  readonly isWatched?: true;
  readonly env?: Readonly<Record<string, string>>;
}

/** Long enough for a stream under way to end; after it, streams get an error event. */
const DRAIN_LIMIT_MS = 30_000;

export async function start(argv: readonly string[], root: string): Promise<number> {
  const asked = readConfig(argv);
  assertSafeToListen({ host: asked.host, apiKey: asked.apiKeys[0]?.key ?? null, adminKey: asked.adminKey });
  makeDataFolder(asked.dataDir);
  const onPorts = await withFreePorts(asked);
  const link = linkPlace(asked.linkPath);
  const { line: sharesLine, ...shares } = workerShares(onPorts);
  const config: Config = Object.freeze({ ...onPorts, ...shares, linkPath: link.path });

  const ending = endOfSupervisor();
  const fatal = resolvers<string>();
  const stopping = new AbortController();
  const parts: Part[] = [];
  const workerIds = Array.from({ length: config.workerCount }, (_, index) => `worker-${index}`);
  let clickhouse: EmbeddedClickHouse | null = null;
  const startedAt = performance.now();
  const say = (part: string) => (line: string) => console.log(`[${part}] ${line}`);

  /** Dashboard and optimizer first: nothing depends on them. The gateway drains before the worker goes. */
  async function endAll(): Promise<void> {
    stopping.abort();
    // A draining gateway sends the worker home.
    for (const part of parts) part.retire();
    const stop = (name: string, limitMs: number) => parts.find((part) => part.name === name)?.stop(limitMs);
    await Promise.all([stop('dashboard', 3000), stop('optimizer', 3000)]);
    await stop('gateway', DRAIN_LIMIT_MS + 10_000);
    await Promise.all(workerIds.map((workerId) => stop(workerId, 3000)));
    await clickhouse?.stop();
  }

  const running = (async (): Promise<string> => {
    const modelPath = await modelPlace(config, root, stopping.signal);
    if (config.clickhouseUrl === null)
      clickhouse = await embeddedClickHouse(join(config.dataDir, 'clickhouse'), say('clickhouse'));
    const clickhouseUrl = config.clickhouseUrl ?? clickhouse?.url ?? '';
    const launch = ({ name, script, flags, firstFlags = [], env = {}, isWatched }: Launch) => {
      const loader = script.endsWith('.mjs') ? [] : ['--import', 'tsx'];
      const args = (restartCount: number) => [
        ...loader,
        script,
        ...flags,
        ...(restartCount === 0 ? firstFlags : []),
      ];
      const spec = {
        name,
        command: process.execPath,
        args,
        cwd: root,
        env: { ...environmentForParts(), ...env },
        ...(isWatched ? { isWatched } : {}),
      };
      parts.push(startPart(spec, say(name), fatal.resolve));
    };
    const secrets: Record<string, string> = {};
    if (config.apiKeys.length > 0)
      secrets.VARIATOR_API_KEY = config.apiKeys.map(({ name, key }) => `${name}:${key}`).join(',');
    if (config.adminKey !== null) secrets.VARIATOR_ADMIN_KEY = config.adminKey;
    if (config.joinListen !== null) {
      const { token, file } = joinToken(config);
      secrets.VARIATOR_JOIN_TOKEN = token;
      console.log(joinLine(config.joinListen, file));
    }
    const engineFlags = flagsFor(config, modelPath);
    const keyFile = join(config.dataDir, 'admin-key');
    if (config.adminKey !== null) writeFileSync(keyFile, config.adminKey, { mode: 0o600 });
    const adminUrl = `http://${urlHost(config.host)}:${config.adminPort}`;
    const urlFile = join(config.dataDir, 'clickhouse-url');
    writeFileSync(urlFile, clickhouseUrl, { mode: 0o600 });

    const pathFlags = config.path === null ? [] : ['--path', config.path];
    launch({
      name: 'gateway',
      script: 'apps/engine/main.ts',
      flags: engineFlags,
      // Asked for once: a gateway that comes back follows what was promoted since.
      firstFlags: pathFlags,
      env: { ...secrets, VARIATOR_CLICKHOUSE_URL: clickhouseUrl },
    });
    if (sharesLine !== '') console.log(sharesLine);
    for (const [index, workerId] of workerIds.entries()) {
      const own = ['--device', deviceOfWorker(config.device, index), '--worker-id', workerId];
      launch({
        name: workerId,
        script: 'apps/engine/worker/main.ts',
        flags: [...engineFlags, ...pathFlags, ...own],
        isWatched: true,
      });
    }
    const keyFlags = config.adminKey === null ? [] : ['--admin-key-file', keyFile];
    launch({
      name: 'optimizer',
      script: 'packages/optimizer/service/main.ts',
      flags: ['--admin-url', adminUrl, '--clickhouse-url-file', urlFile, ...keyFlags],
    });
    launch({
      name: 'dashboard',
      script: 'apps/web/serve.mjs',
      flags: ['--port', String(config.webPort), '--host', dashboardHost(config.host)],
      env: {
        VARIATOR_WEB_ADMIN_URL: adminUrl,
        ...(config.adminKey === null ? {} : { VARIATOR_WEB_ADMIN_KEY_FILE: keyFile }),
      },
    });
    await untilReady(config);
    console.log(welcome(config, await servedModel(config), performance.now() - startedAt));
    return await new Promise<string>(() => {});
  })();

  const reason = await Promise.race([running, ending.then(() => ''), fatal.promise]).catch(
    (error: unknown) => (error instanceof Error ? error.message : String(error)),
  );
  if (reason === '')
    console.log('\nDraining and ending; a second Ctrl-C in two seconds or later ends at once.');
  const impatient = secondSignal();
  await Promise.race([endAll(), impatient]);
  for (const part of parts) await part.stop(0);
  link.remove();
  if (reason === '') return 0;
  console.error(reason);
  return 1;
}

function flagsFor(config: Config, modelPath: string): string[] {
  const flags: (readonly [string, string | number])[] = [
    ['--model', modelPath],
    ['--host', config.host],
    ['--port', config.port],
    ['--admin-port', config.adminPort],
    ['--web-port', config.webPort],
    ['--data', config.dataDir],
    ['--device', config.device.text],
    ['--threads', config.threadCount],
    ['--max-batch-file', `${config.maxBatchFileBytes}B`],
    ['--max-batch-lines', config.maxBatchLineCount],
    ['--max-batch-storage', `${config.maxBatchStorageBytes}B`],
    ['--spool-limit', `${config.spoolLimitBytes}B`],
    ['--device-usd-per-hour', config.deviceUsdPerHour],
    ['--link', config.linkPath],
    ['--max-queued-requests', config.maxQueuedRequestCount],
    ['--max-queued-tokens', config.maxQueuedTokenCount],
    ['--tenant-queue-share', Math.round(config.tenantQueueShare * 100)],
    ['--trust-tenant-header', config.isTenantHeaderTrusted ? 'on' : 'off'],
  ];
  if (Number.isFinite(config.kvMemoryBytes)) flags.push(['--kv-memory', `${config.kvMemoryBytes}B`]);
  if (config.joinListen !== null)
    flags.push(['--join-listen', `${urlHost(config.joinListen.host)}:${config.joinListen.port}`]);
  if (config.maxModelLenTokens !== null) flags.push(['--max-model-len', config.maxModelLenTokens]);
  if (config.requestTimeoutMs !== null) flags.push(['--request-timeout', config.requestTimeoutMs / 1000]);
  if (config.maxQueueWaitMs !== null) flags.push(['--max-queue-wait', config.maxQueueWaitMs / 1000]);
  if (config.otlpEndpoint !== null) flags.push(['--otlp-endpoint', config.otlpEndpoint]);
  if (config.clickhouseCluster !== null) flags.push(['--clickhouse-cluster', config.clickhouseCluster]);
  if (config.servedModelNames !== null)
    flags.push(['--served-model-name', config.servedModelNames.join(',')]);
  return flags.flatMap(([flag, value]) => [flag, String(value)]);
}

const urlHost = (host: string): string => {
  const reachable = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
  return reachable.includes(':') ? `[${reachable}]` : reachable;
};

/** Why it does not answer yet; null once it does. */
const unreadiness = async (url: string): Promise<string | null> => {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(2000) });
    if (response.ok) return null;
    const { reason } = (await response.json()) as { reason?: string };
    return reason ?? String(response.status);
  } catch {
    return 'it does not listen yet';
  }
};

async function untilReady(config: Config): Promise<void> {
  const webHost = urlHost(dashboardHost(config.host));
  for (const url of [
    `http://${urlHost(config.host)}:${config.port}/ready`,
    `http://${webHost}:${config.webPort}/`,
  ]) {
    let waitedMs = 0;
    let said = '';
    for (let reason = await unreadiness(url); reason !== null; reason = await unreadiness(url)) {
      await pause(50);
      waitedMs += 50;
      if (waitedMs % 5000 !== 0 || reason === said) continue;
      said = reason;
      console.log(`Waiting for ${url}: ${reason}`);
    }
  }
}

async function servedModel(config: Config): Promise<string> {
  const headers: Record<string, string> =
    config.apiKeys[0] === undefined ? {} : { authorization: `Bearer ${config.apiKeys[0].key}` };
  const response = await fetch(`http://${urlHost(config.host)}:${config.port}/v1/models`, { headers });
  const body = (await response.json()) as { data?: { id: string }[] };
  return body.data?.[0]?.id ?? 'default';
}

/** How another machine's workers come in; the token itself is not for logs. */
function joinLine({ host, port }: HostPort, tokenFile: string | null): string {
  const token = tokenFile === null ? '$VARIATOR_JOIN_TOKEN' : `$(cat ${tokenFile})`;
  return `Workers of other machines join with: VARIATOR_JOIN_TOKEN="${token}" npx variator worker --join ${urlHost(host)}:${port}`;
}

/** Of several keys our own variable holds none as it is. */
const keyWord = ({ apiKeys }: Config): string =>
  apiKeys.length === 1 && apiKeys[0]?.name === 'default' ? '$VARIATOR_API_KEY' : '$KEY';

function welcome(config: Config, modelId: string, startMs: number): string {
  const host = urlHost(config.host);
  const key = config.apiKeys.length === 0 ? '' : ` -H "authorization: Bearer ${keyWord(config)}"`;
  const body = JSON.stringify({
    model: modelId,
    messages: [{ role: 'user', content: 'Tell me a story.' }],
    max_tokens: 60,
  });
  return [
    '',
    `Variator is ready (${(startMs / 1000).toFixed(1)} s)`,
    `  OpenAI endpoint  http://${host}:${config.port}/v1   (${modelId})`,
    `  Dashboard        http://${urlHost(dashboardHost(config.host))}:${config.webPort}`,
    `  tRPC API         http://${host}:${config.adminPort}/trpc`,
    '',
    'Try it:',
    `  curl http://${host}:${config.port}/v1/chat/completions -H 'content-type: application/json'${key} -d '${body}'`,
    '',
  ].join('\n');
}

function resolvers<T>(): { promise: Promise<T>; resolve(value: T): void } {
  let resolve: (value: T) => void = () => {};
  const promise = new Promise<T>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}
