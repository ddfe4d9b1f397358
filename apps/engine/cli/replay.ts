/** `npx variator replay`: recorded, generated or demonstration traffic against an endpoint, with progress and a summary. */
import { writeFileSync } from 'node:fs';
import { ConfigError } from '../config/config-error.ts';
import { agentTraffic } from './replay/agent-traffic.ts';
import { replayDemo } from './replay/demo.ts';
import type { EndpointAbilities } from './replay/endpoint-probe.ts';
import { openTrace } from './replay/open-trace.ts';
import type { TrafficSource } from './replay/planned-traffic.ts';
import { reportText } from './replay/print-report.ts';
import { progressLine } from './replay/progress-line.ts';
import { type ReplayFlags, readReplayFlags, replayHelp } from './replay/replay-flags.ts';
import { replayTrace } from './replay/replay-trace.ts';

/** @returns 1 where a request failed */
export async function replayCommand(argv: readonly string[]): Promise<number> {
  const flags = readReplayFlags(argv);
  if (flags.mode === 'help') {
    console.log(replayHelp);
    return 0;
  }
  if (flags.mode === 'demo') return replayDemo(flags);
  if (flags.mode === 'agents' && flags.durationMs === null && !Number.isFinite(flags.mostTurnCount)) {
    throw new ConfigError('Agents never end; bound them with --duration or --limit.');
  }
  const { name, source } = await trafficOf(flags);
  const stop = new AbortController();
  // A second Ctrl-C ends the process as it would have without us.
  process.once('SIGINT', () => stop.abort());
  let bar: ReturnType<typeof progressLine> | null = null;
  const { abilities, report } = await replayTrace(source, flags, stop.signal, (found, progress) => {
    console.log(
      `${name} to ${flags.url}, ${sentAs(found)}${flags.scale === 1 ? '' : `, lengths x ${flags.scale}`}`,
    );
    bar = progressLine(() => {
      const { share, requestCount, faultCount, inFlightCount } = progress();
      const faults = faultCount > 0 ? `, ${faultCount} failed` : '';
      return {
        label: 'sending',
        share,
        text: `${requestCount} answered${faults}, ${inFlightCount} under way`,
      };
    });
  }).finally(() => bar?.end());
  if (stop.signal.aborted) console.log('Stopped; the summary so far:');
  console.log(`\n${reportText(report, abilities, source)}`);
  if (flags.jsonPath !== null) {
    const { tokenIds, ...endpoint } = abilities;
    const written = {
      traffic: name,
      at: new Date().toISOString(),
      endpoint: { url: flags.url, ...endpoint, areTokenIdsSent: tokenIds !== null },
      ...{ scale: flags.scale, speed: flags.speed, seed: flags.seed, isStopped: stop.signal.aborted },
      traceFaults: source.faults.list(),
      remarks: source.remarks(),
      ...report,
    };
    writeFileSync(flags.jsonPath, `${JSON.stringify(written, null, 2)}\n`);
    console.log(`The whole report: ${flags.jsonPath}`);
  }
  return report.all.requestCount === report.all.okCount ? 0 : 1;
}

async function trafficOf(flags: ReplayFlags): Promise<{ name: string; source: TrafficSource }> {
  if (flags.mode === 'agents') return { name: `agents, seed ${flags.seed}`, source: agentTraffic(flags) };
  const source = await openTrace({ ...flags, path: flags.tracePath });
  return { name: `${source.format} trace ${flags.tracePath}`, source };
}

function sentAs({ modelId, api, tokenIds }: EndpointAbilities): string {
  if (tokenIds !== null) return `model ${modelId}, prompts as token ids`;
  return `model ${modelId}, prompts as text to ${api === 'chat' ? '/v1/chat/completions' : '/v1/completions'}`;
}
