/**
 * `npx variator replay --demo`: drives a running engine through two phases that want different paths, and back, with a
 * progress bar and a summary. A client like any other: it knows the endpoint's URL and nothing of the engine's inside.
 */
import { parseArgs } from 'node:util';
import { ConfigError, readConfig } from '../config.ts';
import { type ClientRecord, drivePhase, type Endpoint, percentiles, send } from './drive.ts';
import { table } from './table.ts';
import { type DemoOptions, demoPhases, type Phase } from './workload.ts';

const help = `Drives a running engine with a workload and prints what its clients saw.

usage: npx variator replay --demo [FLAGS]

  --demo               chats under an ITL objective with long prompts falling in; a flood of short answers; chats again
  --url URL            the endpoint (http://127.0.0.1:8000)
  --phase-seconds N    length of each phase (60)
  --seed N             another random workload of the same kind (1)
  VARIATOR_API_KEY     sent where it is set`;

export async function replayCommand(argv: readonly string[]): Promise<number> {
  const flags = readFlags(argv);
  if (flags.help === true) {
    console.log(help);
    return 0;
  }
  if (flags.demo !== true)
    throw new ConfigError('Say which workload: npx variator replay --demo (more come with the traces).');
  const endpoint = await findEndpoint(flags.url ?? 'http://127.0.0.1:8000', flags.apiKey);
  const phaseMs = positive('--phase-seconds', flags['phase-seconds'] ?? '60') * 1000;
  const options = await demoOptions(endpoint, positive('--seed', flags.seed ?? '1'), phaseMs);
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort());

  const rows: string[][] = [];
  for (const [index, phase] of demoPhases(options).entries()) {
    if (stop.signal.aborted) break;
    const records: ClientRecord[] = [];
    const bar = progressBar(`phase ${index + 1} of 3, ${phase.name}`, phase, records);
    await drivePhase(endpoint, phase, (record) => records.push(record), stop.signal);
    bar.end();
    rows.push(summaryRow(phase, records));
  }
  console.log(
    table(
      [
        'phase',
        'requests',
        'faults',
        'tok/s out',
        'tok/s in',
        'TTFT p50/p95/p99',
        'ITL p50/p95/p99',
        'E2E p50/p95/p99',
      ],
      rows,
    ),
  );
  return rows.every((row) => row[2] === '0') ? 0 : 1;
}

function readFlags(argv: readonly string[]) {
  try {
    const { values } = parseArgs({
      args: [...argv],
      options: {
        demo: { type: 'boolean' },
        url: { type: 'string' },
        'phase-seconds': { type: 'string' },
        seed: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    });
    return { ...values, apiKey: readConfig([]).apiKeys[0]?.key ?? null };
  } catch (error) {
    throw new ConfigError(`${(error as Error).message}. npx variator replay --help lists the flags.`);
  }
}

function positive(flag: string, text: string): number {
  const value = Number(text);
  if (!(value > 0)) throw new ConfigError(`${flag} must be a number above 0, not "${text}".`);
  return value;
}

export async function findEndpoint(url: string, apiKey: string | null): Promise<Endpoint> {
  const headers: Record<string, string> = apiKey === null ? {} : { authorization: `Bearer ${apiKey}` };
  let response: Response;
  try {
    response = await fetch(`${url}/v1/models`, { headers, signal: AbortSignal.timeout(5000) });
  } catch {
    throw new ConfigError(
      `Nothing answers at ${url}; start the engine with npm start, or say where it is with --url.`,
    );
  }
  if (!response.ok)
    throw new ConfigError(`${url}/v1/models answered ${response.status}; is VARIATOR_API_KEY right?`);
  const { data } = (await response.json()) as { data: { id: string }[] };
  return { url, apiKey, modelId: data[0]?.id ?? '' };
}

/** The same shape of workload on a fast and a slow model: rates follow what one request alone takes. */
export async function demoOptions(endpoint: Endpoint, seed: number, phaseMs: number): Promise<DemoOptions> {
  const request = {
    atMs: 0,
    prompt: 'the little dog saw the boat',
    maxTokens: 32,
    isStreamed: true,
    session: 'probe',
  };
  const signal = new AbortController().signal;
  await send(endpoint, request, signal);
  const { e2eMs, fault } = await send(endpoint, { ...request, prompt: 'the old cat found the hill' }, signal);
  if (fault !== '') throw new ConfigError(`The endpoint does not answer a small request: ${fault}`);
  return {
    seed,
    phaseMs,
    // Batched, a chat costs far less than alone: less than one stream's rate leaves room for the long prompts.
    chatRate: Math.min(20, Math.max(0.5, 800 / Math.max(e2eMs, 20))),
    longPromptEveryMs: 2000,
    longPromptWords: 1800,
    floodConcurrency: 24,
    floodPromptWords: 160,
  };
}

function summaryRow(phase: Phase, records: readonly ClientRecord[]): string[] {
  const good = records.filter(({ fault }) => fault === '');
  const seconds = phase.durationMs / 1000;
  const sum = (of: (record: ClientRecord) => number) => good.reduce((total, record) => total + of(record), 0);
  const three = (values: readonly number[]) => {
    const found = percentiles(values);
    return found
      ? `${[found.p50, found.p95, found.p99]
          .map((ms) => (ms < 1000 ? `${Math.round(ms)}` : `${(ms / 1000).toFixed(1)}k`))
          .join(' / ')} ms`
      : '-';
  };
  return [
    phase.name,
    String(records.length),
    String(records.length - good.length),
    (sum((record) => record.completionTokenCount) / seconds).toFixed(0),
    (sum((record) => record.promptTokenCount) / seconds).toFixed(0),
    three(good.flatMap(({ ttftMs }) => ttftMs ?? [])),
    three(good.flatMap(({ gapsMs }) => gapsMs)),
    three(good.map(({ e2eMs }) => e2eMs)),
  ];
}

function progressBar(label: string, phase: Phase, records: readonly ClientRecord[]) {
  const startedAt = performance.now();
  const isTerminal = process.stdout.isTTY === true;
  const draw = () => {
    const share = Math.min(1, (performance.now() - startedAt) / phase.durationMs);
    const filled = Math.round(share * 24);
    const faults = records.filter(({ fault }) => fault !== '').length;
    const line = `${label.padEnd(22)} [${'#'.repeat(filled)}${'.'.repeat(24 - filled)}] ${Math.round(share * 100)} %, ${records.length} answered${faults > 0 ? `, ${faults} faults` : ''}`;
    if (isTerminal) process.stdout.write(`\r\x1b[K${line}`);
    else console.log(line);
  };
  const timer = setInterval(draw, isTerminal ? 250 : 5000);
  return {
    end() {
      clearInterval(timer);
      draw();
      if (isTerminal) process.stdout.write('\n');
    },
  };
}
