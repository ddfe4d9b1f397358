/**
 * `npx variator replay --demo`: drives a running engine through two phases that want different paths, and back, with a
 * progress bar and a summary. A client like any other: it knows the endpoint's URL and nothing of the engine's inside.
 */
import { ConfigError } from '../../config/config-error.ts';
import { type ClientRecord, drivePhase, type Endpoint, percentiles, send } from '../drive.ts';
import { table } from '../table.ts';
import { type DemoOptions, demoPhases, type Phase } from '../workload.ts';
import { progressLine } from './progress-line.ts';
import type { ReplayFlags } from './replay-flags.ts';

export async function replayDemo(flags: ReplayFlags): Promise<number> {
  const endpoint = await findEndpoint(flags.url, flags.apiKey);
  const options = await demoOptions(endpoint, flags.seed, flags.phaseMs);
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort());

  const rows: string[][] = [];
  for (const [index, phase] of demoPhases(options).entries()) {
    if (stop.signal.aborted) break;
    const records: ClientRecord[] = [];
    const startedAt = performance.now();
    const bar = progressLine(() => {
      const faults = records.filter(({ fault }) => fault !== '').length;
      return {
        label: `phase ${index + 1} of 3, ${phase.name}`,
        share: (performance.now() - startedAt) / phase.durationMs,
        text: `${records.length} answered${faults > 0 ? `, ${faults} faults` : ''}`,
      };
    });
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
