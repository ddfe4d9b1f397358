/**
 * Frames over a stream socket: a 4-byte big-endian length, then JSON. Used by both ends of the link. Knows nothing of
 * what the frames mean. Bounded: an oversized frame, or a peer that does not read, ends the socket with a reason.
 */
import type { Socket } from 'node:net';
import { MAX_FRAME_BYTES } from './link-frames.ts';

/** The other side broke the framing, or stopped reading. */
export class LinkError extends Error {
  override readonly name = 'LinkError';
}

/** Unsent bytes at which a peer counts as dead: it has not read for far too long. */
const MAX_UNSENT_BYTES = 4 * MAX_FRAME_BYTES;

export interface FrameSocket<Out> {
  send(frame: Out): void;
  /** Resolves when everything sent so far was handed to the system. */
  flush(): Promise<void>;
  close(): void;
  /** Ends it here and now, whatever was not sent yet. */
  destroy(): void;
  isOpen(): boolean;
  /** From now on frames may be so large. */
  allowFramesOf(bytes: number): void;
}

/**
 * @param onFrame is called for every whole frame, in order
 * @param onClose is called once; the error is null when the other side simply left
 * @param mostFrameBytes of what arrives; of somebody unknown little is kept
 */
export function frameSocket<In extends { readonly type: string }, Out>(
  socket: Socket,
  onFrame: (frame: In) => void,
  onClose: (error: Error | null) => void,
  mostFrameBytes: number = MAX_FRAME_BYTES,
): FrameSocket<Out> {
  let pieces: Buffer[] = [];
  let pieceBytes = 0;
  /** Pieces are put together once they hold a whole frame, not with every piece. */
  let awaitedBytes = 4;
  let failure: Error | null = null;
  let isOpen = true;

  socket.setNoDelay(true);
  socket.on('data', (data: Buffer) => {
    pieces.push(data);
    pieceBytes += data.length;
    if (pieceBytes < awaitedBytes) return;
    let buffer = pieces.length === 1 ? data : Buffer.concat(pieces);
    awaitedBytes = 4;
    while (buffer.length >= 4) {
      const length = buffer.readUInt32BE(0);
      if (length > mostFrameBytes) {
        fail(new LinkError(`a frame of ${length} bytes is over the limit of ${mostFrameBytes}`));
        return;
      }
      if (buffer.length < 4 + length) {
        awaitedBytes = 4 + length;
        break;
      }
      const text = buffer.toString('utf8', 4, 4 + length);
      buffer = buffer.subarray(4 + length);
      let frame: In;
      try {
        frame = JSON.parse(text) as In;
      } catch {
        fail(new LinkError('a frame is not JSON'));
        return;
      }
      onFrame(frame);
      if (!isOpen) return;
    }
    pieces = buffer.length === 0 ? [] : [buffer];
    pieceBytes = buffer.length;
  });
  socket.on('error', (error) => {
    failure ??= error;
  });
  socket.on('close', () => {
    if (!isOpen) return;
    isOpen = false;
    onClose(failure);
  });

  function fail(error: Error): void {
    failure ??= error;
    socket.destroy();
  }

  return {
    send(frame) {
      if (!isOpen || socket.destroyed) return;
      const body = Buffer.from(JSON.stringify(frame), 'utf8');
      if (body.length > MAX_FRAME_BYTES)
        throw new LinkError(`a frame of ${body.length} bytes is over the limit`);
      const head = Buffer.allocUnsafe(4);
      head.writeUInt32BE(body.length, 0);
      socket.cork();
      socket.write(head);
      socket.write(body);
      socket.uncork();
      if (socket.writableLength > MAX_UNSENT_BYTES) fail(new LinkError('the other side does not read'));
    },
    flush() {
      return new Promise((done) => {
        if (!isOpen || socket.destroyed || socket.writableLength === 0) done();
        else socket.write('', () => done());
      });
    },
    close() {
      socket.end();
    },
    destroy() {
      socket.destroy();
    },
    isOpen: () => isOpen && !socket.destroyed,
    allowFramesOf(bytes) {
      mostFrameBytes = bytes;
    },
  };
}
