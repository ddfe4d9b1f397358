/** Texts become values, or a ConfigError that names the option and says what it must be. Called by readConfig. Pure. */
import { ConfigError } from './config-error.ts';
import { nameOf, type OptionName } from './options.ts';

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

export function whole(name: OptionName, text: string, least: number, most: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new ConfigError(`${nameOf(name)} must be a whole number from ${least} to ${most}, not "${text}".`);
  }
  return value;
}

export function amount(name: OptionName, text: string): number {
  const value = Number(text);
  if (!Number.isFinite(value) || value < 0) {
    throw new ConfigError(`${nameOf(name)} must be a number of at least 0, not "${text}".`);
  }
  return value;
}

export function size(name: OptionName, text: string): number {
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

export function url(name: OptionName, text: string | null): string | null {
  if (text === null) return null;
  if (!URL.canParse(text) || !/^https?:$/.test(new URL(text).protocol)) {
    throw new ConfigError(`${nameOf(name)} must be an http or https URL.`);
  }
  return text;
}

export function cluster(name: OptionName, text: string | null, clickhouseUrl: string | null): string | null {
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

export function names(name: OptionName, text: string | null): readonly string[] | null {
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
export function span(name: OptionName, text: string | null): number | null {
  if (text === null) return null;
  const seconds = Number(text);
  if (!(seconds >= 0.001 && seconds <= 604_800)) {
    throw new ConfigError(
      `${nameOf(name)} must be a number of seconds from 0.001 to 604800, not "${text}"; leave it out for no limit.`,
    );
  }
  return seconds * 1000;
}

export function oneOf<Choice extends string>(
  name: OptionName,
  text: string,
  choices: readonly Choice[],
): Choice {
  const chosen = choices.find((choice) => choice === text);
  if (chosen === undefined)
    throw new ConfigError(`${nameOf(name)} must be ${choices.join(' or ')}, not "${text}".`);
  return chosen;
}

/** `KEY`, or `NAME:KEY` several times, separated by commas. Says nothing of the keys themselves. */
export function namedKeys(name: OptionName, text: string | null): { name: string; key: string }[] {
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

export function key(name: OptionName, text: string | null): string | null {
  if (text !== null && text.length < 8)
    throw new ConfigError(`${nameOf(name)} must have at least 8 characters.`);
  return text;
}

/** Guessing it is the only way in. */
export function longKey(name: OptionName, text: string | null): string | null {
  if (text !== null && text.length < 32)
    throw new ConfigError(`${nameOf(name)} must have at least 32 characters.`);
  return text;
}

export function hostPort(name: OptionName, text: string | null): HostPort | null {
  if (text === null) return null;
  const [, bracketed, plain, port = ''] = /^(?:\[([\da-f:.]+)\]|([\w.-]+)):(\d{1,5})$/i.exec(text) ?? [];
  const host = bracketed ?? plain;
  if (host === undefined || Number(port) > 65_535) {
    throw new ConfigError(`${nameOf(name)} must be HOST:PORT, like 10.0.0.5:7800, not "${text}".`);
  }
  return { host, port: Number(port) };
}

export function workerName(name: OptionName, text: string): string {
  // A host's own name may have more than a label takes.
  const short = text.slice(0, 64);
  if (!/^[\w.-]+$/.test(short))
    throw new ConfigError(`${nameOf(name)} must be letters, digits and . _ or -, not "${text}".`);
  return short;
}
