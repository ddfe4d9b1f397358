/**
 * The one table of options: flag, variable, what a value looks like and what it means. Gives `--help` and the names that
 * messages use. Read by given.ts; readConfig says what each comes to.
 */
import { simulatedMachines } from './simulated-machines.ts';

export const isas = ['generic', 'avx2', 'avx512', 'avx512vnni', 'all'] as const;

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
    value: 'cpu|cuda:N|simulated:...',
    help: `cpu, the GPU with this number (each further worker takes the next one), or one that nobody has: simulated:${Object.keys(simulatedMachines).join('|')}[,parameters=8e9,kvBytesPerToken=131072,noise=0.03] (cpu)`,
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
    help: 'memory for the KV cache of all workers, e.g. 512MiB (1GiB; on a GPU what is left of its memory, and of each worker)',
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

export type OptionName = keyof typeof options;
export const optionEntries = Object.entries(options) as [OptionName, Option][];

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

/** As a message names it. */
export const nameOf = (name: OptionName): string => {
  const option: Option = options[name];
  return option.flag === '' ? `${option.env}` : `${option.flag} (${option.env})`;
};
