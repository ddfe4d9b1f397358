/**
 * A port that is free now and stays so until its owner listens: below those that the system gives to outgoing connections,
 * which could take it in between and keep it for as long as they live. Used where a port was left to choose.
 */
import { createServer, type Server } from 'node:net';

const LEAST_PORT = 20_000;
/** Linux hands out from 32768 on. */
const BEYOND_PORT = 32_768;
const TRIES = 64;

/** Listens on it already, so that nobody else finds it free; the caller closes it. @throws Error where none is free */
export async function holdFreePort(host: string): Promise<{ port: number; server: Server }> {
  let fault: Error = new Error(`no port of ${host} is free`);
  for (let tries = 0; tries < TRIES; tries += 1) {
    const port = LEAST_PORT + Math.floor(Math.random() * (BEYOND_PORT - LEAST_PORT));
    const server = createServer();
    const outcome = await new Promise<NodeJS.ErrnoException | null>((resolve) => {
      server.once('error', resolve);
      server.listen(port, host, () => resolve(null));
    });
    if (outcome === null) return { port, server };
    fault = outcome;
    if (outcome.code !== 'EADDRINUSE') break;
  }
  throw fault;
}

export async function freePort(host: string): Promise<number> {
  const { port, server } = await holdFreePort(host);
  await new Promise((closed) => server.close(closed));
  return port;
}
