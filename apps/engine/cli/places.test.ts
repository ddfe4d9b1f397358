import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { ConfigError } from '../config/config-error.ts';
import { readConfig } from '../config.ts';
import { dashboardHost, linkPlace, makeDataFolder, withFreePorts } from './places.ts';

const folder = mkdtempSync(join(tmpdir(), 'variator-places-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const anyPort = ['--port', '0', '--admin-port', '0', '--web-port', '0'];

test('port 0 becomes three different free ports', async () => {
  const { port, adminPort, webPort } = await withFreePorts(readConfig(anyPort, {}));
  expect(new Set([port, adminPort, webPort]).size).toBe(3);
  expect(Math.min(port, adminPort, webPort)).toBeGreaterThan(0);
});

test('a taken port, and one asked for twice, are refused by their flag', async () => {
  const other = createServer();
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
  const address = other.address();
  const port = typeof address === 'object' && address ? String(address.port) : '';
  const taken = readConfig([...anyPort, '--admin-port', port], {});
  await expect(withFreePorts(taken)).rejects.toThrow(/is taken; choose another with --admin-port/);
  await new Promise((closed) => other.close(closed));
  const twice = readConfig([...anyPort, '--port', port, '--web-port', port], {});
  await expect(withFreePorts(twice)).rejects.toThrow(/is taken; choose another with --web-port/);
});

test('the dashboard, which carries the admin key, stays on this machine', () => {
  expect(['127.0.0.1', '::1', 'localhost'].map(dashboardHost)).toEqual(['127.0.0.1', '::1', 'localhost']);
  expect(['0.0.0.0', '::', '192.0.2.1', 'a.example'].map(dashboardHost)).toEqual(Array(4).fill('127.0.0.1'));
});

test('a link path that the system would cut off gets a short one, which is removed again', () => {
  const short = join(folder, 'link.sock');
  expect(linkPlace(short).path).toBe(short);
  const link = linkPlace(join(folder, 'd'.repeat(100), 'link.sock'));
  expect(Buffer.byteLength(link.path)).toBeLessThanOrEqual(103);
  writeFileSync(link.path, '');
  link.remove();
  expect(() => rmSync(dirname(link.path))).toThrow(/ENOENT/);
});

test('a data folder below a file is refused by name', () => {
  const file = join(folder, 'file');
  writeFileSync(file, '');
  expect(() => makeDataFolder(join(file, 'data'))).toThrow(ConfigError);
});

test('where workers join has a free port too, and says its own flag', async () => {
  const { joinListen, port } = await withFreePorts(
    readConfig([...anyPort, '--join-listen', '127.0.0.1:0'], {}),
  );
  expect(joinListen?.port).toBeGreaterThan(0);
  expect(joinListen?.port).not.toBe(port);
  const nowhere = readConfig([...anyPort, '--join-listen', '192.0.2.1:7800'], {});
  await expect(withFreePorts(nowhere)).rejects.toThrow(/choose another with --join-listen ADDRESS:PORT/);
});
