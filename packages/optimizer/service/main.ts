/**
 * The optimizer's process: reads ClickHouse, fits, marks regimes, calibrates, proposes through the tRPC API. Started by the
 * supervisor and on nobody's path: when it is dead, nothing else notices. Ends on SIGTERM or when its parent is gone.
 */
import { constants, setPriority } from 'node:os';
import { createTelemetryClient } from '@variator/clickhouse/client';
import { createCalibrator } from './calibrate.ts';
import { createGateway } from './gateway.ts';
import { createFitLearner } from './learn-fits.ts';
import { createRegimeMarker } from './mark-regimes.ts';
import { help, OptionError, parseOptions, type ServiceOptions } from './options.ts';
import { createFaults, repeat } from './repeat.ts';
import { createPathSuggester } from './suggest-paths.ts';

/** Tells the supervisor that starting it again would not help. */
const FATAL_EXIT_CODE = 78;

async function run(options: ServiceOptions, signal: AbortSignal): Promise<void> {
  const log = (line: string): void => console.log(line);
  const faults = createFaults(log);
  const gateway = createGateway(options.adminUrl, options.adminKey, signal);
  const telemetry = createTelemetryClient(options.clickhouseUrl);
  const { windowMs, regimeWindowMs, leastRequestCount } = options;
  const learner = createFitLearner({ gateway, telemetry, log });
  const marker = createRegimeMarker({ gateway, telemetry, windowMs: regimeWindowMs, log });
  const calibrator = createCalibrator({ gateway, learner, log });
  const suggester = createPathSuggester({
    gateway,
    telemetry,
    learner,
    marker,
    windowMs,
    leastRequestCount,
    log,
  });
  await Promise.all([
    repeat('fits', options.fitEveryMs, learner.round, faults, signal),
    repeat('regimes', Math.max(250, regimeWindowMs / 2), marker.round, faults, signal),
    repeat('calibration', options.fitEveryMs, calibrator.round, faults, signal),
    repeat('proposals', options.proposeEveryMs, suggester.round, faults, signal),
  ]);
  await telemetry.close();
}

function untilEnd(): AbortSignal {
  const end = new AbortController();
  process.on('SIGTERM', () => end.abort());
  process.on('SIGINT', () => {
    // A terminal's Ctrl-C is the supervisor's; alone at a terminal there is none.
    if (process.stdin.isTTY) end.abort();
  });
  if (!process.stdin.isTTY) {
    process.stdin.on('end', () => end.abort());
    process.stdin.on('error', () => end.abort());
    process.stdin.resume();
  }
  return end.signal;
}

if (process.argv.includes('--help')) {
  console.log(help);
} else {
  try {
    const options = parseOptions(process.argv.slice(2));
    // Model and gateway come first: a search may wait, a step may not.
    setPriority(constants.priority.PRIORITY_LOW);
    await run(options, untilEnd());
    process.exit(0);
  } catch (error) {
    if (!(error instanceof OptionError)) throw error;
    console.error(error.message);
    process.exit(FATAL_EXIT_CODE);
  }
}
