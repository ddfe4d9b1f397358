/**
 * A worker's end of the link: dials the gateway, says hello, and dials again whenever the link is lost, until it is told to
 * end or refused for good. Used by worker/main.ts. Knows nothing of what the frames ask for.
 *
 *   dialling --connected--> greeting --alive--> joined --lost or silent--> dialling         greeting --refused, final--> ended
 */
import { connect, type Socket } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { type FrameSocket, frameSocket } from '../fleet/frame-socket.ts';
import { tlsOfWorker } from '../fleet/join-tls.ts';
import type { GatewayFrame, WorkerFrame, WorkFrame } from '../fleet/link-frames.ts';

export type GatewayPlace =
  | { readonly kind: 'local'; readonly socketPath: string }
  | { readonly kind: 'remote'; readonly host: string; readonly port: number; readonly token: string };

export interface GatewayLinkOptions {
  readonly place: GatewayPlace;
  /** First of every connection. */
  readonly greeting: () => Iterable<WorkerFrame>;
  readonly onFrame: (frame: WorkFrame) => void;
  /** It had joined and the link is lost: nobody waits for its work. */
  readonly onLost: () => void;
  readonly log: (line: string) => void;
}

export interface GatewayLink {
  /** Dropped while no gateway is there. */
  send(frame: WorkerFrame): void;
  /** Resolves once it was ended. @throws GatewayRefusal */
  run(): Promise<void>;
  /** What was sent is handed over first. */
  end(): Promise<void>;
}

/** The gateway will not have this worker, however often it asks. */
export class GatewayRefusal extends Error {
  override readonly name = 'GatewayRefusal';
}

/** A gateway speaks about once a second. In turns of the watch: where this process stood still, no turns passed. */
const WATCH_MS = 500;
const MOST_SILENT_TURNS = 20;
const LEAST_PAUSE_MS = 100;
/** A local gateway is started again by the same supervisor, within moments. */
const MOST_PAUSE_MS = { local: 100, remote: 3000 };
const KEEP_ALIVE_MS = 5000;

export function gatewayLink({ place, greeting, onFrame, onLost, log }: GatewayLinkOptions): GatewayLink {
  const name = place.kind === 'local' ? 'the gateway' : `the gateway at ${place.host}:${place.port}`;
  const ending = new AbortController();
  let joined: FrameSocket<WorkerFrame> | null = null;
  let open: Socket | null = null;
  let refusal: GatewayRefusal | null = null;
  let lastFault = '';
  let hasJoined = false;

  const say = (fault: string): void => {
    if (place.kind === 'remote' && fault !== lastFault) log(fault);
    lastFault = fault;
  };

  /** One connection, from dialling to its end. */
  function dial(): Promise<void> {
    return new Promise((ended) => {
      const socket =
        place.kind === 'local'
          ? connect(place.socketPath)
          : connectTls({ host: place.host, port: place.port, ...tlsOfWorker(place.token) });
      if (place.kind === 'remote') socket.setKeepAlive(true, KEEP_ALIVE_MS);
      open = socket;
      hasJoined = false;
      let silentTurns = 0;
      let isRefused = false;
      const watch = setInterval(() => {
        silentTurns += 1;
        if (silentTurns > MOST_SILENT_TURNS)
          socket.destroy(new Error(`nothing came for ${(MOST_SILENT_TURNS * WATCH_MS) / 1000} s`));
      }, WATCH_MS);
      const link = frameSocket<GatewayFrame, WorkerFrame>(
        socket,
        (frame) => {
          silentTurns = 0;
          if (frame.type === 'refused') {
            isRefused = true;
            if (frame.isFinal) refusal = new GatewayRefusal(`${name} refused this worker: ${frame.reason}`);
            else say(`${name} refused this worker for now: ${frame.reason}`);
          } else if (frame.type !== 'alive') onFrame(frame);
          else if (!hasJoined) {
            hasJoined = true;
            lastFault = '';
            if (place.kind === 'remote') log(`joined ${name}`);
          }
        },
        (error) => {
          clearInterval(watch);
          open = null;
          if (joined === link) {
            joined = null;
            onLost();
          }
          if (error && isWrongKey(error)) refusal = new GatewayRefusal(`${name} has another join token.`);
          else if (!isRefused && !ending.signal.aborted)
            say(
              `${hasJoined ? 'lost' : 'cannot join'} ${name}: ${error?.message ?? 'it left'}; trying again`,
            );
          ended();
        },
      );
      socket.once(place.kind === 'local' ? 'connect' : 'secureConnect', () => {
        joined = link;
        for (const frame of greeting()) link.send(frame);
      });
    });
  }

  return {
    send: (frame) => joined?.send(frame),
    async run() {
      let pauseMs = LEAST_PAUSE_MS;
      while (!ending.signal.aborted) {
        await dial();
        if (refusal) throw refusal;
        pauseMs = hasJoined ? LEAST_PAUSE_MS : Math.min(2 * pauseMs, MOST_PAUSE_MS[place.kind]);
        // Ended while it paused.
        await pause(pauseMs, undefined, { signal: ending.signal }).catch(() => {});
      }
    },
    async end() {
      ending.abort();
      await joined?.flush();
      if (joined) joined.close();
      else open?.destroy();
    },
  };
}

/** OpenSSL's words for keys that differ: whoever has no token cannot answer in any. */
const isWrongKey = (error: Error): boolean => /bad record mac|decryption failed/i.test(error.message);
