import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { parseOptions } from './options.ts';

const both = ['--admin-url', 'http://127.0.0.1:8001/', '--clickhouse-url', 'http://u:p@127.0.0.1:9/variator'];

test('defaults stand where a flag is absent, and secrets come from files', () => {
  const folder = mkdtempSync(join(tmpdir(), 'options-'));
  const keyFile = join(folder, 'key');
  writeFileSync(keyFile, 'secret\n', { mode: 0o600 });
  const options = parseOptions([...both, '--admin-key-file', keyFile, '--window-ms', '60000']);
  rmSync(folder, { recursive: true });
  expect(options).toEqual({
    adminUrl: 'http://127.0.0.1:8001',
    adminKey: 'secret',
    clickhouseUrl: 'http://u:p@127.0.0.1:9/variator',
    fitEveryMs: 5000,
    proposeEveryMs: 10_000,
    windowMs: 60_000,
    regimeWindowMs: 5000,
    leastRequestCount: 30,
  });
});

test.each([
  [['--clickhouse-url', 'http://127.0.0.1:1'], '--admin-url is missing.'],
  [['--admin-url', 'http://127.0.0.1:1'], '--clickhouse-url is missing.'],
  [['--admin-url', 'ftp://127.0.0.1'], '--admin-url must be an http URL.'],
  [[...both, '--fit-every-ms', '0'], '--fit-every-ms must be a whole number from 1 to 86400000, not "0".'],
  [[...both, '--window-ms', 'soon'], '--window-ms must be a whole number'],
  [[...both, '--admin-key-file', '/nowhere/key'], '--admin-key-file /nowhere/key cannot be read'],
  [[...both, '--surprise'], "Unknown option '--surprise'"],
])('%j is refused in one sentence', (argv, sentence) => {
  expect(() => parseOptions(argv)).toThrow(sentence);
});
