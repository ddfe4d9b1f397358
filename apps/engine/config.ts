/**
 * The only reader of process.env and flags: config/options.ts is their table, here is what each comes to. Every entry
 * point calls `readConfig` once and hands each part its own slice. An unknown flag or VARIATOR_* is refused by name.
 */
import { availableParallelism, homedir, hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { ConfigError } from './config/config-error.ts';
import { type DeviceChoice, deviceChoice } from './config/device-choice.ts';
import { fromEnvironment, fromFlags } from './config/given.ts';
import { isas, nameOf, type OptionName } from './config/options.ts';
import {
  amount,
  cluster,
  type HostPort,
  hostPort,
  key,
  longKey,
  namedKeys,
  names,
  oneOf,
  size,
  span,
  url,
  whole,
  workerName,
} from './config/values.ts';

export interface Config {
  /** A model folder or GGUF file; null for the default model. */
  readonly model: string | null;
  readonly hubUrl: string;
  readonly hubToken: string | null;
  readonly host: string;
  readonly port: number;
  readonly adminPort: number;
  readonly webPort: number;
  readonly dataDir: string;
  /** A named execution path with optional settings: `balanced,maxRunningCount=1`; null where none was asked for. */
  readonly path: string | null;
  /** Worker processes on this machine; they share its threads and KV memory. */
  readonly workerCount: number;
  readonly device: DeviceChoice;
  readonly threadCount: number;
  /** The most that the kernels may use of the CPU's instructions. */
  readonly isa: (typeof isas)[number];
  /** Infinity: as much as the device has left. */
  readonly kvMemoryBytes: number;
  /** Null: what the model and the KV memory allow. */
  readonly maxModelLenTokens: number | null;
  /** Of one input file of a batch, of its lines, and of all files and results of batches together. */
  readonly maxBatchFileBytes: number;
  readonly maxBatchLineCount: number;
  readonly maxBatchStorageBytes: number;
  readonly clickhouseUrl: string | null;
  /** null: that ClickHouse is one server. */
  readonly clickhouseCluster: string | null;
  /** Most that rows which ClickHouse has not taken may take on this disk. */
  readonly spoolLimitBytes: number;
  readonly deviceUsdPerHour: number;
  /** Where traces go; null: nowhere. */
  readonly otlpEndpoint: string | null;
  /** What clients call the model, the first as answers report it; null: the model's own id. */
  readonly servedModelNames: readonly string[] | null;
  /** Empty: no key is asked for. A single one without a name is called `default`. */
  readonly apiKeys: readonly { readonly name: string; readonly key: string }[];
  readonly isTenantHeaderTrusted: boolean;
  /** Most requests and prompt tokens that wait for their first token at once. */
  readonly maxQueuedRequestCount: number;
  readonly maxQueuedTokenCount: number;
  /** Of the queue, for one of several tenants, 0..1. */
  readonly tenantQueueShare: number;
  /** Null: none. */
  readonly requestTimeoutMs: number | null;
  /** For what is not flex; null: none. */
  readonly maxQueueWaitMs: number | null;
  readonly adminKey: string | null;
  /** The link's socket; given by the supervisor to the processes it starts. */
  readonly linkPath: string;
  /** Where workers of other machines may join; null: nowhere. */
  readonly joinListen: HostPort | null;
  /** The gateway that a worker of another machine joins; null: that of this machine. */
  readonly joinAddress: HostPort | null;
  /** What gateway and joining workers both must have. */
  readonly joinToken: string | null;
  readonly workerId: string;
  /** Where downloaded models are kept, outside the clone. */
  readonly cacheDir: string;
}

/**
 * @param argv flags without node, script and command
 * @throws ConfigError for an unknown flag or variable, a missing or impossible value
 */
export function readConfig(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>> = process.env,
): Config {
  const given = { ...fromEnvironment(env), ...fromFlags(argv) };
  const text = (name: OptionName): string | null => given[name] ?? null;
  const dataDir = resolve(text('data') ?? '.variator');
  const workerCount = whole('workers', text('workers') ?? '1', 0, 64);
  const requestTimeoutMs = span('requestTimeout', text('requestTimeout'));
  const maxQueueWaitMs = span('maxQueueWait', text('maxQueueWait'));
  if (requestTimeoutMs !== null && maxQueueWaitMs !== null && maxQueueWaitMs > requestTimeoutMs) {
    throw new ConfigError(
      `${nameOf('maxQueueWait')} is longer than ${nameOf('requestTimeout')}: no request could wait that long.`,
    );
  }
  const device = deviceChoice('device', text('device') ?? 'cpu');
  const kvMemory = text('kvMemory') ?? (device.kind === 'cuda' ? null : '1GiB');
  const home = env.XDG_CACHE_HOME ?? join(homedir(), '.cache');
  return Object.freeze({
    model: text('model'),
    hubUrl: (url('hubUrl', text('hubUrl')) ?? 'https://huggingface.co').replace(/\/+$/, ''),
    hubToken: text('hubToken'),
    host: text('host') ?? '127.0.0.1',
    port: whole('port', text('port') ?? '8000', 0, 65_535),
    adminPort: whole('adminPort', text('adminPort') ?? '8001', 0, 65_535),
    webPort: whole('webPort', text('webPort') ?? '3000', 0, 65_535),
    dataDir,
    path: text('path'),
    workerCount,
    device,
    threadCount: whole(
      'threads',
      text('threads') ?? String(Math.min(Math.max(2, workerCount), availableParallelism())),
      1,
      256,
    ),
    isa: oneOf('isa', text('isa') ?? 'all', isas),
    kvMemoryBytes: kvMemory === null ? Number.POSITIVE_INFINITY : size('kvMemory', kvMemory),
    maxModelLenTokens:
      text('maxModelLen') === null ? null : whole('maxModelLen', text('maxModelLen') ?? '', 16, 10_000_000),
    maxBatchFileBytes: size('maxBatchFile', text('maxBatchFile') ?? '200MB'),
    maxBatchLineCount: whole('maxBatchLines', text('maxBatchLines') ?? '50000', 1, 1_000_000),
    maxBatchStorageBytes: size('maxBatchStorage', text('maxBatchStorage') ?? '2GiB'),
    clickhouseUrl: url('clickhouseUrl', text('clickhouseUrl')),
    clickhouseCluster: cluster('clickhouseCluster', text('clickhouseCluster'), text('clickhouseUrl')),
    spoolLimitBytes: size('spoolLimit', text('spoolLimit') ?? '1GiB'),
    deviceUsdPerHour: amount('deviceUsdPerHour', text('deviceUsdPerHour') ?? '0.08'),
    otlpEndpoint: url('otlpEndpoint', text('otlpEndpoint')),
    servedModelNames: names('servedModelName', text('servedModelName')),
    apiKeys: namedKeys('apiKey', text('apiKey')),
    isTenantHeaderTrusted:
      oneOf('trustTenantHeader', text('trustTenantHeader') ?? 'off', ['on', 'off']) === 'on',
    maxQueuedRequestCount: whole('maxQueuedRequests', text('maxQueuedRequests') ?? '256', 1, 100_000),
    maxQueuedTokenCount: whole('maxQueuedTokens', text('maxQueuedTokens') ?? '1000000', 1, 1_000_000_000),
    tenantQueueShare: whole('tenantQueueShare', text('tenantQueueShare') ?? '50', 1, 100) / 100,
    requestTimeoutMs,
    maxQueueWaitMs,
    adminKey: key('adminKey', text('adminKey')),
    linkPath: text('link') ?? join(dataDir, 'link.sock'),
    joinListen: hostPort('joinListen', text('joinListen')),
    joinAddress: hostPort('join', text('join')),
    joinToken: longKey('joinToken', text('joinToken')),
    workerId: workerName('workerId', text('workerId') ?? (text('join') === null ? 'worker-0' : hostname())),
    cacheDir: join(home, 'variator', 'models'),
  });
}

/** The environment without our variables: the parts that the supervisor starts get theirs as flags. */
export function environmentForParts(): Record<string, string> {
  const kept = Object.entries(process.env).filter(
    ([name, value]) => value !== undefined && !name.startsWith('VARIATOR_'),
  );
  return Object.fromEntries(kept) as Record<string, string>;
}
