/** The flags of `npx variator replay`: read, checked and explained here. A client's options, so not those of config.ts. */
import { parseArgs } from 'node:util';
import { ConfigError } from '../../config/config-error.ts';
import { readConfig } from '../../config.ts';
import type { Api } from './endpoint-probe.ts';
import { type TraceFormat, traceFormats } from './open-trace.ts';
import type { AskedTier } from './planned-traffic.ts';
import type { ReplayObjectives } from './traffic-report.ts';

export const replayHelp = `Drives an OpenAI-compatible endpoint with recorded traffic and prints what its clients saw.

usage: npx variator replay TRACE [FLAGS]      a file or folder, see Traces
       npx variator replay --agents [FLAGS]   agents' traffic from a seed, endless: bound it with --duration
       npx variator replay --demo [FLAGS]     two phases that want different paths, for watching the dashboard

Traces (found out from what is there, or --format ${traceFormats.join('|')}):
  mooncake   FILE.jsonl with timestamp, input_length, output_length, hash_ids; equal ids become equal prompt blocks
  azure      FILE.csv with TIMESTAMP,ContextTokens,GeneratedTokens
  servegen   FOLDER with chunk-N-trace.csv and chunk-N-dataset.json; requests are drawn from its distributions
  exgentic   FOLDER with sessions/ID/agent/litellm/trace.jsonl; real conversations, one turn after the other

Where
  --url URL             the endpoint (http://127.0.0.1:8000); VARIATOR_API_KEY is sent where it is set
  --model ID            (the first that it serves)
  --api chat|completions  (token ids to completions where they are taken, else text to chat)
How much
  --scale X             multiplies prompt and output lengths; what prompts share they share still (1)
  --speed X             the trace's clock against the wall's (1)
  --from S              starts so many seconds into the trace (0)
  --duration S          sends for so long, then waits for what is under way
  --limit N             sends so many requests
  --max-in-flight N     requests under way at once; what must wait for a place counts as late (512)
  --timeout S           of one request (600)
  --seed N              another draw of the same kind (1)
  --phase-seconds N     of --agents and --demo: how long one mix lasts (60)
  --live-answers        later turns repeat what was really answered, not text of the recorded length
  --tier T              asks for this service_tier throughout: priority, default or flex
What is good
  --ttft-ms N  --itl-ms N  --e2e-ms N   objectives; goodput and attainment count what keeps all that are given
Output
  --json FILE           the whole report; times are in ms, counted from when a request should have been sent

Ctrl-C ends it in order with the summary so far; a second one at once.
Examples
  npx variator replay conversation_trace.jsonl --scale 0.02 --speed 0.2 --duration 120 --ttft-ms 2000 --itl-ms 100
  npx variator replay --agents --scale 0.01 --duration 300 --json agents.json`;

export interface ReplayFlags {
  readonly mode: 'help' | 'demo' | 'agents' | 'trace';
  readonly tracePath: string;
  readonly format: TraceFormat | null;
  readonly url: string;
  readonly apiKey: string | null;
  readonly modelId: string | null;
  readonly api: Api | null;
  readonly scale: number;
  readonly speed: number;
  readonly fromMs: number;
  readonly durationMs: number | null;
  readonly mostTurnCount: number;
  readonly maxInFlight: number;
  readonly timeoutMs: number;
  readonly seed: number;
  readonly phaseMs: number;
  readonly hasLiveAnswers: boolean;
  readonly tier: AskedTier | null;
  readonly objectives: ReplayObjectives;
  readonly jsonPath: string | null;
}

const text = { type: 'string' } as const;
const isGiven = { type: 'boolean' } as const;

/** @throws ConfigError that names the flag */
export function readReplayFlags(argv: readonly string[]): ReplayFlags {
  const { values, positionals } = parsed(argv);
  const [tracePath = '', ...more] = positionals;
  if (more.length > 0) throw new ConfigError(`One trace at a time; "${more[0]}" is a second one.`);
  const asked = [values.demo, values.agents, tracePath !== ''].filter((each) => each === true).length;
  if (asked !== 1 && values.help !== true) {
    throw new ConfigError(
      'Say what to send: a trace, --agents or --demo, one of them. npx variator replay --help explains.',
    );
  }
  const number = (flag: keyof typeof values, otherwise: string): number =>
    positive(flag, String(values[flag] ?? otherwise));
  const optional = (flag: keyof typeof values): number | null =>
    values[flag] === undefined ? null : positive(flag, String(values[flag]));
  const whole = (flag: keyof typeof values, otherwise: string): number => {
    const value = number(flag, otherwise);
    if (!Number.isSafeInteger(value))
      throw new ConfigError(`--${flag} must be a whole number, not ${value}.`);
    return value;
  };
  const seconds = (value: number | null): number | null => (value === null ? null : value * 1000);
  return {
    mode: values.help ? 'help' : values.demo ? 'demo' : values.agents ? 'agents' : 'trace',
    tracePath,
    format: oneOf('format', values.format, traceFormats),
    url: endpointUrl(values.url ?? 'http://127.0.0.1:8000'),
    apiKey: readConfig([]).apiKeys[0]?.key ?? null,
    modelId: values.model ?? null,
    api: oneOf('api', values.api, ['chat', 'completions']),
    scale: number('scale', '1'),
    speed: number('speed', '1'),
    fromMs: values.from === undefined || values.from === '0' ? 0 : number('from', '0') * 1000,
    durationMs: seconds(optional('duration')),
    mostTurnCount: values.limit === undefined ? Number.POSITIVE_INFINITY : whole('limit', '1'),
    maxInFlight: whole('max-in-flight', '512'),
    timeoutMs: number('timeout', '600') * 1000,
    seed: whole('seed', '1'),
    phaseMs: number('phase-seconds', '60') * 1000,
    hasLiveAnswers: values['live-answers'] === true,
    tier: oneOf('tier', values.tier, ['priority', 'default', 'flex']),
    objectives: { ttftMs: optional('ttft-ms'), itlMs: optional('itl-ms'), e2eMs: optional('e2e-ms') },
    jsonPath: values.json ?? null,
  };
}

function parsed(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: {
        ...{ demo: isGiven, agents: isGiven, 'live-answers': isGiven, help: { ...isGiven, short: 'h' } },
        ...{ format: text, url: text, model: text, api: text, scale: text, speed: text, from: text },
        ...{ duration: text, limit: text, 'max-in-flight': text, timeout: text, seed: text, tier: text },
        ...{ 'phase-seconds': text, 'ttft-ms': text, 'itl-ms': text, 'e2e-ms': text, json: text },
      },
    });
  } catch (error) {
    throw new ConfigError(`${(error as Error).message}. npx variator replay --help lists the flags.`);
  }
}

function positive(flag: string, given: string): number {
  const value = Number(given);
  if (given.trim() !== '' && value > 0 && Number.isFinite(value)) return value;
  throw new ConfigError(`--${flag} must be a number above 0, not "${given}".`);
}

function oneOf<T extends string>(flag: string, given: string | undefined, known: readonly T[]): T | null {
  if (given === undefined) return null;
  const found = known.find((each) => each === given);
  if (found === undefined)
    throw new ConfigError(`--${flag} must be one of ${known.join(', ')}, not "${given}".`);
  return found;
}

/** Without a slash or /v1 at its end, which we add. */
function endpointUrl(given: string): string {
  if (!/^https?:\/\/[^/]/.test(given))
    throw new ConfigError(`--url must start with http:// or https://, not "${given}".`);
  return given.replace(/\/+$/, '').replace(/\/v1$/, '');
}
