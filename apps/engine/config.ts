/**
 * The only reader of process.env and flags: one table of options gives the parser, the checks and `--help`. Every entry
 * point calls `readConfig` once and hands each part its own slice. An unknown flag or VARIATOR_* is refused by name.
 */
import { availableParallelism, homedir, hostname } from 'node:os';
import { join, resolve } from 'node:path';

const isas = ['generic', 'avx2', 'avx512', 'avx512vnni', 'all'] as const;

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

/** Datasheet figures of machines that can be simulated: dense rates, peak bandwidth. */
export const simulatedMachines = {
  l4: {
    title: 'NVIDIA L4 24GB',
    memoryBytes: 24e9,
    readBytesPerSecond: 0.3e12,
    bfloat16FlopsPerSecond: 121e12,
    int8OpsPerSecond: 242e12,
  },
  a100: {
    title: 'NVIDIA A100 80GB',
    memoryBytes: 80e9,
    readBytesPerSecond: 2.04e12,
    bfloat16FlopsPerSecond: 312e12,
    int8OpsPerSecond: 624e12,
  },
  h100: {
    title: 'NVIDIA H100 80GB',
    memoryBytes: 80e9,
    readBytesPerSecond: 3.35e12,
    bfloat16FlopsPerSecond: 989e12,
    int8OpsPerSecond: 1979e12,
  },
  h200: {
    title: 'NVIDIA H200 141GB',
    memoryBytes: 141e9,
    readBytesPerSecond: 4.8e12,
    bfloat16FlopsPerSecond: 989e12,
    int8OpsPerSecond: 1979e12,
  },
} as const;

export type SimulatedDeviceName = keyof typeof simulatedMachines;

export type DeviceChoice =
  | { readonly kind: 'cpu' }
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

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** A flag or variable that cannot be used; the message names it and says what to change. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

interface Option {
  readonly flag: string;
  readonly env: string | null;
  readonly value: string;
  readonly help: string;
  /** Kept out of --help: given by the supervisor to its children. */
  readonly isInternal?: true;
  /** Secrets are taken from the environment alone: flags show in process lists. */
  readonly isSecret?: true;
}

const options = {
  model: {
    flag: '--model',
    env: 'VARIATOR_MODEL',
    value: 'DIR|FILE|ORG/NAME',
    help: 'Hugging Face folder, GGUF file or hub id (default: SmolLM2-135M-Instruct, fetched once)',
  },
  hubUrl: {
    flag: '--hub-url',
    env: 'VARIATOR_HUB_URL',
    value: 'URL',
    help: 'where hub ids are fetched (https://huggingface.co)',
  },
  hubToken: {
    flag: '',
    env: 'VARIATOR_HUB_TOKEN',
    value: 'TOKEN',
    help: 'for models of the hub that are not open to everybody (none)',
    isSecret: true,
  },
  port: { flag: '--port', env: 'VARIATOR_PORT', value: 'N', help: 'inference port (8000)' },
  adminPort: { flag: '--admin-port', env: 'VARIATOR_ADMIN_PORT', value: 'N', help: 'tRPC port (8001)' },
  webPort: { flag: '--web-port', env: 'VARIATOR_WEB_PORT', value: 'N', help: 'dashboard port (3000)' },
  host: {
    flag: '--host',
    env: 'VARIATOR_HOST',
    value: 'ADDRESS',
    help: 'address to listen on (127.0.0.1; beyond loopback both keys must be set)',
  },
  data: {
    flag: '--data',
    env: 'VARIATOR_DATA',
    value: 'DIR',
    help: 'where telemetry and control state live (.variator)',
  },
  path: {
    flag: '--path',
    env: 'VARIATOR_PATH',
    value: 'NAME[,SETTING=N...]',
    help: 'execution path to start on: balanced, latency, throughput, reference (balanced)',
  },
  workers: {
    flag: '--workers',
    env: 'VARIATOR_WORKERS',
    value: 'N',
    help: 'worker processes on this machine; they share threads and KV memory (1)',
  },
  device: {
    flag: '--device',
    env: 'VARIATOR_DEVICE',
    value: 'cpu|simulated:NAME[,...]',
    help: `cpu, or one that nobody has: simulated:${Object.keys(simulatedMachines).join('|')}[,parameters=8e9,kvBytesPerToken=131072,noise=0.03] (cpu)`,
  },
  threads: {
    flag: '--threads',
    env: 'VARIATOR_THREADS',
    value: 'N',
    help: 'compute threads of all workers (the machine: at most 2, or one a worker)',
  },
  isa: {
    flag: '--isa',
    env: 'VARIATOR_ISA',
    value: isas.join('|'),
    help: 'the most that the kernels may use of this CPU (all)',
  },
  kvMemory: {
    flag: '--kv-memory',
    env: 'VARIATOR_KV_MEMORY',
    value: 'SIZE',
    help: 'memory for the KV cache of all workers, e.g. 512MiB (1GiB)',
  },
  maxModelLen: {
    flag: '--max-model-len',
    env: 'VARIATOR_MAX_MODEL_LEN',
    value: 'TOKENS',
    help: 'longest prompt plus answer (what the model was made for)',
  },
  maxBatchFile: {
    flag: '--max-batch-file',
    env: 'VARIATOR_MAX_BATCH_FILE',
    value: 'SIZE',
    help: 'largest input file of a batch (200MB)',
  },
  maxBatchLines: {
    flag: '--max-batch-lines',
    env: 'VARIATOR_MAX_BATCH_LINES',
    value: 'N',
    help: 'most requests in one batch (50000)',
  },
  maxBatchStorage: {
    flag: '--max-batch-storage',
    env: 'VARIATOR_MAX_BATCH_STORAGE',
    value: 'SIZE',
    help: 'disk for the files and results of all batches (2GiB)',
  },
  clickhouseUrl: {
    flag: '--clickhouse-url',
    env: 'VARIATOR_CLICKHOUSE_URL',
    value: 'URL',
    help: 'an existing ClickHouse, http://user:password@host:8123 (default: one of our own)',
  },
  clickhouseCluster: {
    flag: '--clickhouse-cluster',
    env: 'VARIATOR_CLICKHOUSE_CLUSTER',
    value: 'NAME',
    help: 'its cluster of that name: replicated tables on every shard (it is one server)',
  },
  spoolLimit: {
    flag: '--spool-limit',
    env: 'VARIATOR_SPOOL_LIMIT',
    value: 'SIZE',
    help: 'disk that telemetry rows may take while ClickHouse is away (1GiB)',
  },
  deviceUsdPerHour: {
    flag: '--device-usd-per-hour',
    env: 'VARIATOR_DEVICE_USD_PER_HOUR',
    value: 'USD',
    help: 'what an hour of the device costs, for cost per token (0.08)',
  },
  otlpEndpoint: {
    flag: '--otlp-endpoint',
    env: 'VARIATOR_OTLP_ENDPOINT',
    value: 'URL',
    help: 'an OpenTelemetry collector for traces, http://host:4318 (none)',
  },
  servedModelName: {
    flag: '--served-model-name',
    env: 'VARIATOR_SERVED_MODEL_NAME',
    value: 'NAME[,NAME...]',
    help: 'what clients call the model; answers report the first (its folder or file name)',
  },
  maxQueuedRequests: {
    flag: '--max-queued-requests',
    env: 'VARIATOR_MAX_QUEUED_REQUESTS',
    value: 'N',
    help: 'most requests that wait for their first token; more are refused with 429 (256)',
  },
  maxQueuedTokens: {
    flag: '--max-queued-tokens',
    env: 'VARIATOR_MAX_QUEUED_TOKENS',
    value: 'TOKENS',
    help: 'most prompt tokens of these (1000000)',
  },
  tenantQueueShare: {
    flag: '--tenant-queue-share',
    env: 'VARIATOR_TENANT_QUEUE_SHARE',
    value: 'PERCENT',
    help: 'most of the queue that one of several tenants may fill (50)',
  },
  requestTimeout: {
    flag: '--request-timeout',
    env: 'VARIATOR_REQUEST_TIMEOUT',
    value: 'SECONDS',
    help: 'longest that a request may take; x-deadline-ms of a client may shorten it (no limit)',
  },
  maxQueueWait: {
    flag: '--max-queue-wait',
    env: 'VARIATOR_MAX_QUEUE_WAIT',
    value: 'SECONDS',
    help: 'longest that a request which is not flex may wait for its first step (no limit)',
  },
  trustTenantHeader: {
    flag: '--trust-tenant-header',
    env: 'VARIATOR_TRUST_TENANT_HEADER',
    value: 'on|off',
    help: 'take x-tenant-id for the tenant; only behind a gateway that sets it (off)',
  },
  apiKey: {
    flag: '',
    env: 'VARIATOR_API_KEY',
    value: 'KEY|NAME:KEY,...',
    help: 'clients must send one as a Bearer token; its name is the tenant (none)',
    isSecret: true,
  },
  adminKey: {
    flag: '',
    env: 'VARIATOR_ADMIN_KEY',
    value: 'KEY',
    help: 'needed for the tRPC API (none)',
    isSecret: true,
  },
  joinListen: {
    flag: '--join-listen',
    env: 'VARIATOR_JOIN_LISTEN',
    value: 'ADDRESS:PORT',
    help: 'where workers of other machines may join this gateway (nowhere)',
  },
  join: {
    flag: '--join',
    env: 'VARIATOR_JOIN',
    value: 'HOST:PORT',
    help: 'for `variator worker`: the gateway to join',
  },
  joinToken: {
    flag: '',
    env: 'VARIATOR_JOIN_TOKEN',
    value: 'TOKEN',
    help: 'what gateway and joining workers both must have (made at the first start, in DATA/join-token)',
    isSecret: true,
  },
  workerId: {
    flag: '--worker-id',
    env: 'VARIATOR_WORKER_ID',
    value: 'NAME',
    help: 'for `variator worker`: its name in the fleet (the host name)',
  },
  link: {
    flag: '--link',
    env: null,
    value: 'SOCKET',
    help: 'the link between gateway and worker',
    isInternal: true,
  },
} satisfies Record<string, Option>;

type OptionName = keyof typeof options;
const optionEntries = Object.entries(options) as [OptionName, Option][];

/** Prints itself in `npm start -- --help`. */
export function helpText(): string {
  const lines = optionEntries
    .filter(([, option]) => !option.isInternal)
    .map(([, { flag, env, value, help, isSecret }]) => {
      const left = isSecret ? `${env}=${value}` : `${flag} ${value}`;
      return `  ${left.padEnd(34)} ${help}${isSecret ? '' : `  [${env}]`}`;
    });
  return [
    'Variator serves a language model on an OpenAI-compatible endpoint and re-tunes itself.',
    '',
    'usage: npm start [-- FLAGS]          or  npx variator COMMAND [FLAGS]',
    '',
    'commands',
    '  start        everything on this machine: ClickHouse, gateway, worker, optimizer, dashboard',
    '  worker       workers of this machine for the gateway of another (--join)',
    '  replay       drive the endpoint with a workload (--demo: two phases that want different paths)',
    '  paths        what kernels and execution paths this machine has',
    '  proposals    what the optimizer proposes',
    '  status       how the running engine is',
    '',
    'flags (or the variable in brackets)',
    ...lines,
    '',
    'examples',
    '  npm start -- --model ~/models/Qwen3-0.6B --path throughput',
    '  npm start -- --path balanced,maxRunningCount=1 --port 9000',
  ].join('\n');
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
    device: deviceChoice('device', text('device') ?? 'cpu'),
    threadCount: whole(
      'threads',
      text('threads') ?? String(Math.min(Math.max(2, workerCount), availableParallelism())),
      1,
      256,
    ),
    isa: oneOf('isa', text('isa') ?? 'all', isas),
    kvMemoryBytes: size('kvMemory', text('kvMemory') ?? '1GiB'),
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

function fromEnvironment(
  env: Readonly<Record<string, string | undefined>>,
): Partial<Record<OptionName, string>> {
  const given: Partial<Record<OptionName, string>> = {};
  for (const [variable, value] of Object.entries(env)) {
    if (!variable.startsWith('VARIATOR_') || value === undefined || value === '') continue;
    const entry = optionEntries.find(([, option]) => option.env === variable);
    if (!entry) {
      const known = optionEntries.flatMap(([, option]) => option.env ?? []);
      throw new ConfigError(`There is no variable ${variable}${nearest(variable, known)}.`);
    }
    given[entry[0]] = value;
  }
  return given;
}

function fromFlags(argv: readonly string[]): Partial<Record<OptionName, string>> {
  const given: Partial<Record<OptionName, string>> = {};
  for (let at = 0; at < argv.length; at += 1) {
    const [flag = '', ...joined] = (argv[at] ?? '').split('=');
    const entry = optionEntries.find(([, option]) => option.flag !== '' && option.flag === flag);
    if (!entry) {
      const known = optionEntries.flatMap(([, option]) =>
        option.flag === '' || option.isInternal ? [] : option.flag,
      );
      throw new ConfigError(`There is no flag ${flag}${nearest(flag, known)}; --help lists them.`);
    }
    let value: string | undefined = joined.join('=');
    if (joined.length === 0) {
      at += 1;
      value = argv[at];
    }
    if (value === undefined || value === '')
      throw new ConfigError(`${flag} needs a value: ${flag} ${entry[1].value}.`);
    given[entry[0]] = value;
  }
  return given;
}

const nameOf = (name: OptionName): string => {
  const option: Option = options[name];
  return option.flag === '' ? `${option.env}` : `${option.flag} (${option.env})`;
};

function whole(name: OptionName, text: string, least: number, most: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new ConfigError(`${nameOf(name)} must be a whole number from ${least} to ${most}, not "${text}".`);
  }
  return value;
}

function amount(name: OptionName, text: string): number {
  const value = Number(text);
  if (!Number.isFinite(value) || value < 0) {
    throw new ConfigError(`${nameOf(name)} must be a number of at least 0, not "${text}".`);
  }
  return value;
}

function size(name: OptionName, text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|KB|MB|GB|K|M|G)?$/i.exec(text.trim());
  const scale: Record<string, number> = {
    b: 1,
    k: 1024,
    kib: 1024,
    kb: 1e3,
    m: 1024 ** 2,
    mib: 1024 ** 2,
    mb: 1e6,
    g: 1024 ** 3,
    gib: 1024 ** 3,
    gb: 1e9,
  };
  const bytes = match ? Number(match[1]) * (scale[(match[2] ?? 'B').toLowerCase()] ?? 1) : Number.NaN;
  if (!(bytes >= 1024 ** 2))
    throw new ConfigError(`${nameOf(name)} must be a size of at least 1MiB like 512MiB, not "${text}".`);
  return Math.floor(bytes);
}

function url(name: OptionName, text: string | null): string | null {
  if (text === null) return null;
  if (!URL.canParse(text) || !/^https?:$/.test(new URL(text).protocol)) {
    throw new ConfigError(`${nameOf(name)} must be an http or https URL.`);
  }
  return text;
}

function cluster(name: OptionName, text: string | null, clickhouseUrl: string | null): string | null {
  if (text === null) return null;
  if (!/^[A-Za-z_]\w{0,127}$/.test(text)) {
    throw new ConfigError(`${nameOf(name)} must be a name of letters, digits and _, not "${text}".`);
  }
  if (clickhouseUrl === null) {
    throw new ConfigError(
      `${nameOf(name)} needs ${nameOf('clickhouseUrl')}: our own ClickHouse is one server.`,
    );
  }
  return text;
}

function names(name: OptionName, text: string | null): readonly string[] | null {
  if (text === null) return null;
  const list = text.split(',').map((each) => each.trim());
  const fault =
    list.find((each) => !/^[\w.:@+-]+(\/[\w.:@+-]+)*$/.test(each) || each.length > 128) ??
    list.find((each, index) => list.indexOf(each) !== index);
  if (fault !== undefined) {
    throw new ConfigError(
      `${nameOf(name)} must be names of 1 to 128 letters, digits, and . : @ + - _ or / between, each once, separated by commas; "${fault}" is not.`,
    );
  }
  return list;
}

/** Seconds as milliseconds; up to a week. */
function span(name: OptionName, text: string | null): number | null {
  if (text === null) return null;
  const seconds = Number(text);
  if (!(seconds >= 0.001 && seconds <= 604_800)) {
    throw new ConfigError(
      `${nameOf(name)} must be a number of seconds from 0.001 to 604800, not "${text}"; leave it out for no limit.`,
    );
  }
  return seconds * 1000;
}

function oneOf<Choice extends string>(name: OptionName, text: string, choices: readonly Choice[]): Choice {
  const chosen = choices.find((choice) => choice === text);
  if (chosen === undefined)
    throw new ConfigError(`${nameOf(name)} must be ${choices.join(' or ')}, not "${text}".`);
  return chosen;
}

/** `KEY`, or `NAME:KEY` several times, separated by commas. Says nothing of the keys themselves. */
function namedKeys(name: OptionName, text: string | null): { name: string; key: string }[] {
  if (text === null) return [];
  const keys = text.split(',').map((each) => {
    const [, keyName, rest] = /^\s*([\w.@-]{1,64}):(.*?)\s*$/.exec(each) ?? [];
    return { name: keyName ?? '', key: key(name, rest ?? each.trim()) ?? '' };
  });
  const [only] = keys;
  if (keys.length === 1 && only?.name === '') return [{ ...only, name: 'default' }];
  if (keys.some((each) => each.name === '')) {
    throw new ConfigError(
      `${nameOf(name)} must be one key, or several as NAME:KEY separated by commas, the name of 1 to 64 letters, digits, and . @ _ or -.`,
    );
  }
  const isTwice = (field: 'name' | 'key') => new Set(keys.map((each) => each[field])).size < keys.length;
  if (isTwice('name') || isTwice('key'))
    throw new ConfigError(`${nameOf(name)} has a name or a key twice; give each tenant one of its own.`);
  return keys;
}

function key(name: OptionName, text: string | null): string | null {
  if (text !== null && text.length < 8)
    throw new ConfigError(`${nameOf(name)} must have at least 8 characters.`);
  return text;
}

function deviceChoice(name: OptionName, text: string): DeviceChoice {
  if (text === 'cpu') return { kind: 'cpu' };
  const [, machine = '', rest = ''] = /^simulated:(\w+)((?:,\w+=[\w.+-]+)*)$/.exec(text) ?? [];
  if (!Object.hasOwn(simulatedMachines, machine)) {
    const known = Object.keys(simulatedMachines).map((each) => `simulated:${each}`);
    throw new ConfigError(`${nameOf(name)} must be cpu or ${known.join(' or ')}, not "${text}".`);
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

/** Guessing it is the only way in. */
function longKey(name: OptionName, text: string | null): string | null {
  if (text !== null && text.length < 32)
    throw new ConfigError(`${nameOf(name)} must have at least 32 characters.`);
  return text;
}

function hostPort(name: OptionName, text: string | null): HostPort | null {
  if (text === null) return null;
  const [, bracketed, plain, port = ''] = /^(?:\[([\da-f:.]+)\]|([\w.-]+)):(\d{1,5})$/i.exec(text) ?? [];
  const host = bracketed ?? plain;
  if (host === undefined || Number(port) > 65_535) {
    throw new ConfigError(`${nameOf(name)} must be HOST:PORT, like 10.0.0.5:7800, not "${text}".`);
  }
  return { host, port: Number(port) };
}

function workerName(name: OptionName, text: string): string {
  // A host's own name may have more than a label takes.
  const short = text.slice(0, 64);
  if (!/^[\w.-]+$/.test(short))
    throw new ConfigError(`${nameOf(name)} must be letters, digits and . _ or -, not "${text}".`);
  return short;
}

/** ", did you mean X?" when something known is close. */
function nearest(text: string, known: readonly string[]): string {
  const close = known.map((candidate) => ({ candidate, distance: editDistance(text, candidate) }));
  close.sort((a, b) => a.distance - b.distance);
  const best = close[0];
  return best !== undefined && best.distance <= 3 ? `; did you mean ${best.candidate}?` : '';
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const substitution = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, substitution));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
