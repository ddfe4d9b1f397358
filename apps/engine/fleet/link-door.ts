/**
 * Where workers come in: the Unix socket of this machine's own and, where asked for, TLS for those of others. Says hello to
 * each within bounds, refuses with a reason that the other side can print, hands the rest to worker-fleet.ts. Knows no fleet.
 */
import { rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import { type FrameSocket, frameSocket } from './frame-socket.ts';
import { tlsOfGateway } from './join-tls.ts';
import type { Hello } from './joined-worker.ts';
import {
  type GatewayFrame,
  LINK_VERSION,
  MAX_FRAME_BYTES,
  MAX_HELLO_BYTES,
  type WorkerFrame,
} from './link-frames.ts';
import { helloFault } from './worker-frame-faults.ts';

/** Where workers of other machines join. */
export interface Joining {
  readonly host: string;
  readonly port: number;
  readonly token: string;
}

export type Reception =
  | { readonly kind: 'joined'; onFrame(frame: WorkerFrame): void; onClose(error: Error | null): void }
  | { readonly kind: 'refused'; readonly reason: string; readonly isFinal: boolean };

export interface LinkDoorOptions {
  readonly linkPath: string;
  readonly joining: Joining | null;
  readonly log: (line: string) => void;
  readonly receive: (hello: Hello, link: FrameSocket<GatewayFrame>, isRemote: boolean) => Reception;
}

export interface LinkDoor {
  listen(): Promise<void>;
  /** Where workers of other machines join; null where none do, or before `listen`. */
  joinPort(): number | null;
  close(): Promise<void>;
}

const HELLO_LIMIT_MS = 5000;
/** Of connections that have not said hello; the next is closed unheard. */
const MOST_STRANGERS = 64;
const KEEP_ALIVE_MS = 5000;
/** Whoever knocks again and again is named once in so long. */
const KNOCK_LOG_MS = 10_000;

export function linkDoor({ linkPath, joining, log, receive }: LinkDoorOptions): LinkDoor {
  const sockets = new Set<Socket>();
  let strangerCount = 0;
  let knockLoggedAt = Number.NEGATIVE_INFINITY;
  const local: Server = createServer((socket) => welcome(socket, false));
  const remote: Server | null =
    joining === null
      ? null
      : createTlsServer(tlsOfGateway(joining.token), (socket) => welcome(socket, true)).on(
          'tlsClientError',
          (error, socket) => {
            socket.destroy();
            const at = performance.now();
            if (at - knockLoggedAt < KNOCK_LOG_MS) return;
            knockLoggedAt = at;
            log(`a worker from ${socket.remoteAddress ?? 'elsewhere'} was refused: ${tlsFault(error)}`);
          },
        );
  // Before the handshake too nobody may hold more of these than there are workers.
  if (remote) remote.maxConnections = 512;

  function welcome(socket: Socket, isRemote: boolean): void {
    // A peer that leaves in the middle of anything is told by `close`.
    socket.on('error', () => {});
    if (strangerCount >= MOST_STRANGERS) {
      socket.destroy();
      return;
    }
    if (isRemote) socket.setKeepAlive(true, KEEP_ALIVE_MS);
    strangerCount += 1;
    let isStranger = true;
    const greeted = () => {
      if (isStranger) strangerCount -= 1;
      isStranger = false;
      clearTimeout(limit);
    };
    const limit = setTimeout(() => socket.destroy(), HELLO_LIMIT_MS);
    let reception: Reception | null = null;
    sockets.add(socket);
    const link: FrameSocket<GatewayFrame> = frameSocket<WorkerFrame, GatewayFrame>(
      socket,
      (frame) => {
        if (reception?.kind === 'joined') reception.onFrame(frame);
        if (reception !== null) return;
        greeted();
        reception = receptionOf(frame, link, isRemote);
        if (reception.kind === 'joined') link.allowFramesOf(MAX_FRAME_BYTES);
        else {
          const { reason, isFinal } = reception;
          log(`a worker${from(socket, isRemote)} was refused: ${reason}`);
          link.send({ type: 'refused', reason, isFinal });
          link.close();
          setTimeout(() => socket.destroy(), HELLO_LIMIT_MS).unref();
        }
      },
      (error) => {
        greeted();
        sockets.delete(socket);
        if (reception?.kind === 'joined') reception.onClose(error);
      },
      MAX_HELLO_BYTES,
    );
  }

  function receptionOf(frame: unknown, link: FrameSocket<GatewayFrame>, isRemote: boolean): Reception {
    const { type, version } = (frame ?? {}) as { type?: unknown; version?: unknown };
    if (type === 'hello' && version !== LINK_VERSION) {
      const reason = `it speaks version ${version} of the link, and this gateway speaks ${LINK_VERSION}; run the same release of Variator on both`;
      return { kind: 'refused', reason, isFinal: true };
    }
    const fault = type === 'hello' ? helloFault(frame) : 'something else than hello';
    if (fault !== null) return { kind: 'refused', reason: `it sent ${fault}`, isFinal: true };
    return receive(frame as Hello, link, isRemote);
  }

  return {
    async listen() {
      // A socket file left by a killed gateway would make the address look taken.
      rmSync(linkPath, { force: true });
      await listening(local, (done) => local.listen(linkPath, done));
      if (joining && remote)
        await listening(remote, (done) => remote.listen(joining.port, joining.host, done));
    },
    joinPort() {
      const address = remote?.address();
      return typeof address === 'object' && address !== null ? address.port : null;
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      await Promise.all([local, remote].map((server) => server && closed(server)));
    },
  };
}

const from = (socket: Socket, isRemote: boolean): string => (isRemote ? ` from ${socket.remoteAddress}` : '');

/** OpenSSL's own words for a wrong key do not say so. */
const tlsFault = (error: Error): string =>
  /bad record mac|decryption failed|psk identity not found/i.test(error.message)
    ? 'its join token is not this one'
    : `no TLS with a join token (${error.message.trim().slice(0, 200)})`;

function listening(server: Server, start: (done: () => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    start(() => {
      server.off('error', reject);
      resolve();
    });
  });
}

const closed = (server: Server): Promise<void> => new Promise((resolve) => server.close(() => resolve()));
