/**
 * The service's flags, parsed once: where the gateway's admin port and ClickHouse are, and how often to look. Called by
 * main.ts. Secrets come by files of mode 0600, never by flags, since anyone on the machine can read a command line.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

export interface ServiceOptions {
  readonly adminUrl: string;
  readonly adminKey: string | null;
  readonly clickhouseUrl: string;
  readonly fitEveryMs: number;
  readonly proposeEveryMs: number;
  /** Arrivals this old are still replayed. */
  readonly windowMs: number;
  readonly regimeWindowMs: number;
  /** A window with fewer requests proposes nothing. */
  readonly leastRequestCount: number;
}

export class OptionError extends Error {
  override readonly name = 'OptionError';
}

export const help = `Fits step times, marks regimes and proposes execution paths. Started by npm start.

usage: node --import tsx packages/optimizer/service/main.ts FLAGS

  --admin-url URL            the gateway's tRPC API, e.g. http://127.0.0.1:8001
  --admin-key-file FILE      holds the admin key, where one is set
  --clickhouse-url URL       or
  --clickhouse-url-file FILE holds it, with its password
  --fit-every-ms N           how often to read steps and fit (5000)
  --propose-every-ms N       how often to look for a better path (10000)
  --window-ms N              the arrivals that are replayed (120000)
  --regime-window-ms N       one window of the regime detector (5000)
  --least-request-count N    requests before anything is proposed (30)`;

/** @throws OptionError with a sentence that names the flag */
export function parseOptions(argv: readonly string[]): ServiceOptions {
  const values = readFlags(argv);
  const milliseconds = (flag: string, fallback: number): number =>
    count(flag, values[flag], fallback, 86_400_000);
  const clickhouseUrl =
    values['clickhouse-url'] ?? fromFile('clickhouse-url-file', values['clickhouse-url-file']);
  return Object.freeze({
    adminUrl: url('admin-url', values['admin-url'] ?? ''),
    adminKey: fromFile('admin-key-file', values['admin-key-file']),
    clickhouseUrl: url('clickhouse-url', clickhouseUrl ?? ''),
    fitEveryMs: milliseconds('fit-every-ms', 5000),
    proposeEveryMs: milliseconds('propose-every-ms', 10_000),
    windowMs: milliseconds('window-ms', 120_000),
    regimeWindowMs: milliseconds('regime-window-ms', 5000),
    leastRequestCount: count('least-request-count', values['least-request-count'], 30, 100_000),
  });
}

function readFlags(argv: readonly string[]): Readonly<Record<string, string | undefined>> {
  const flag = { type: 'string' } as const;
  try {
    return parseArgs({
      args: [...argv],
      options: {
        'admin-url': flag,
        'admin-key-file': flag,
        'clickhouse-url': flag,
        'clickhouse-url-file': flag,
        'fit-every-ms': flag,
        'propose-every-ms': flag,
        'window-ms': flag,
        'regime-window-ms': flag,
        'least-request-count': flag,
      },
    }).values;
  } catch (error) {
    throw new OptionError(error instanceof Error ? error.message : String(error));
  }
}

function count(flag: string, text: string | undefined, fallback: number, most: number): number {
  if (text === undefined) return fallback;
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= most) return value;
  throw new OptionError(`--${flag} must be a whole number from 1 to ${most}, not "${text}".`);
}

function url(flag: string, text: string): string {
  if (text === '') throw new OptionError(`--${flag} is missing.`);
  if (URL.canParse(text) && /^https?:/.test(text)) return text.replace(/\/+$/, '');
  throw new OptionError(`--${flag} must be an http URL.`);
}

function fromFile(flag: string, file: string | undefined): string | null {
  if (file === undefined) return null;
  try {
    return readFileSync(file, 'utf8').trim();
  } catch (error) {
    throw new OptionError(
      `--${flag} ${file} cannot be read: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}
