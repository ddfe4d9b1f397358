/**
 * Where the product will listen and keep its things: its ports, its data folder, the link's socket. Asked by start.ts
 * before any part runs, so that a place that cannot be had is one sentence and nothing was started.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isLoopback } from '../api/safe-to-listen.ts';
import { ConfigError } from '../config/config-error.ts';
import type { Config } from '../config.ts';
import { holdFreePort } from './free-port.ts';

/** 104 bytes with the closing zero on macOS, 108 on Linux. */
const MOST_SOCKET_PATH_BYTES = 103;

const joinHint = '--join-listen ADDRESS:PORT or VARIATOR_JOIN_LISTEN=ADDRESS:PORT';

const portFaults: Record<string, string> = {
  EADDRINUSE: 'is taken',
  EACCES: 'is not allowed to this user',
};

/** @throws ConfigError */
export function makeDataFolder(dataDir: string): void {
  try {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  } catch (cause) {
    throw new ConfigError(
      `The data folder ${dataDir} cannot be made (${(cause as Error).message}); choose another with --data DIR or VARIATOR_DATA=DIR.`,
      { cause },
    );
  }
}

/** The dashboard asks nobody for a key and adds the admin key to what it forwards, so it never leaves this machine. */
export function dashboardHost(host: string): string {
  return isLoopback(host) ? host : '127.0.0.1';
}

/** A socket's path is cut off, without a word, where it is longer than the system's address: then it gets a short one. */
export function linkPlace(wanted: string): { path: string; remove(): void } {
  if (Buffer.byteLength(wanted) <= MOST_SOCKET_PATH_BYTES) return { path: wanted, remove: () => {} };
  const folder = mkdtempSync(join(tmpdir(), 'variator-link-'));
  return {
    path: join(folder, 'link.sock'),
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}

/**
 * Port 0 asks for any free port; a taken port, or one asked for twice, is said before anything is started.
 * @throws ConfigError
 */
export async function withFreePorts(config: Config): Promise<Config> {
  const probes: Server[] = [];
  /** @param another says how to choose another port; `elsewhere` another address */
  const free = async (
    host: string,
    port: number,
    another: string,
    elsewhere = '--host ADDRESS or VARIATOR_HOST=ADDRESS',
  ): Promise<number> => {
    const explained = (error: NodeJS.ErrnoException): ConfigError => {
      const why = portFaults[error.code ?? ''];
      return new ConfigError(
        why === undefined
          ? `${host} is no address to listen on here (${error.message}); choose another with ${elsewhere}.`
          : `Port ${port} on ${host} ${why}; choose another with ${another}.`,
      );
    };
    if (port === 0) {
      try {
        const held = await holdFreePort(host);
        probes.push(held.server);
        return held.port;
      } catch (error) {
        throw explained(error as NodeJS.ErrnoException);
      }
    }
    const probe = createServer();
    probes.push(probe);
    return new Promise((resolve, reject) => {
      probe.once('error', (error: NodeJS.ErrnoException) => reject(explained(error)));
      probe.listen(port, host, () => resolve(port));
    });
  };
  try {
    return Object.freeze({
      ...config,
      port: await free(config.host, config.port, '--port N or VARIATOR_PORT=N'),
      adminPort: await free(config.host, config.adminPort, '--admin-port N or VARIATOR_ADMIN_PORT=N'),
      webPort: await free(dashboardHost(config.host), config.webPort, '--web-port N or VARIATOR_WEB_PORT=N'),
      joinListen: config.joinListen && {
        host: config.joinListen.host,
        port: await free(config.joinListen.host, config.joinListen.port, joinHint, joinHint),
      },
    });
  } finally {
    const listening = probes.filter((probe) => probe.listening);
    await Promise.all(listening.map((probe) => new Promise((closed) => probe.close(closed))));
  }
}
