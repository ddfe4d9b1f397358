import { connect, createServer, type Socket } from 'node:net';
import { afterEach, expect, it } from 'vitest';
import { type FrameSocket, frameSocket } from './frame-socket.ts';
import { MAX_FRAME_BYTES } from './link-frames.ts';

type Frame = { readonly type: string; readonly text?: string };
const ends: (() => void)[] = [];
afterEach(() => {
  for (const end of ends.splice(0)) end();
});

/** A raw client beside a framed server: what the client writes, and what the server made of it. */
async function pair() {
  const frames: Frame[] = [];
  const closed: { error: Error | null }[] = [];
  let link: FrameSocket<Frame> | null = null;
  const server = createServer((socket) => {
    link = frameSocket<Frame, Frame>(
      socket,
      (frame) => frames.push(frame),
      (error) => closed.push({ error }),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const client: Socket = connect(typeof address === 'object' && address ? address.port : 0, '127.0.0.1');
  await new Promise((resolve) => client.once('connect', resolve));
  client.on('error', () => client.destroy());
  ends.push(
    () => client.destroy(),
    () => server.close(),
  );
  return { client, frames, closed, link: () => link };
}

const framed = (text: string): Buffer => {
  const body = Buffer.from(text);
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length);
  return Buffer.concat([head, body]);
};
const until = async (isTrue: () => boolean) => {
  for (let waited = 0; !isTrue() && waited < 5000; waited += 5)
    await new Promise((resolve) => setTimeout(resolve, 5));
  expect(isTrue()).toBe(true);
};

it('frames arrive whole and in order, however the bytes are cut', async () => {
  const { client, frames } = await pair();
  const bytes = Buffer.concat(['a', 'ü東🚀', 'c'].map((text) => framed(JSON.stringify({ type: 't', text }))));
  for (let at = 0; at < bytes.length; at += 3) {
    client.write(bytes.subarray(at, at + 3));
    await new Promise((resolve) => setImmediate(resolve));
  }
  await until(() => frames.length === 3);
  expect(frames.map(({ text }) => text)).toEqual(['a', 'ü東🚀', 'c']);
});

it('a frame over the limit ends the socket before its bytes are awaited', async () => {
  const { client, frames, closed } = await pair();
  const head = Buffer.alloc(4);
  head.writeUInt32BE(MAX_FRAME_BYTES + 1);
  client.write(head);
  await until(() => closed.length === 1);
  expect(closed[0]?.error?.message).toMatch(/over the limit/);
  expect(frames).toEqual([]);
});

it('what is not JSON ends the socket with that reason', async () => {
  const { client, closed } = await pair();
  client.write(framed('{"type":'));
  await until(() => closed.length === 1);
  expect(closed[0]?.error?.message).toMatch(/not JSON/);
});

it('a peer that leaves is told apart from one that breaks the framing', async () => {
  const { client, closed } = await pair();
  client.end();
  await until(() => closed.length === 1);
  expect(closed[0]?.error).toBeNull();
});

it('what is sent comes out as one frame each on the other side', async () => {
  const { client, link } = await pair();
  const received: Buffer[] = [];
  client.on('data', (data) => received.push(data));
  await until(() => link() !== null);
  link()?.send({ type: 'one' });
  link()?.send({ type: 'two', text: 'x'.repeat(100_000) });
  const expected = Buffer.concat([
    framed('{"type":"one"}'),
    framed(JSON.stringify({ type: 'two', text: 'x'.repeat(100_000) })),
  ]);
  await until(() => Buffer.concat(received).length >= expected.length);
  expect(Buffer.concat(received).equals(expected)).toBe(true);
});
