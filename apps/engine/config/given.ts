/** What was given, by flag or by variable, still as text. Called by readConfig; refuses by name what it does not know. */
import { ConfigError } from './config-error.ts';
import { type OptionName, optionEntries } from './options.ts';

export function fromEnvironment(
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

export function fromFlags(argv: readonly string[]): Partial<Record<OptionName, string>> {
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
