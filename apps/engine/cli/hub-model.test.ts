/** A hub on this machine that cuts, lies, redirects and refuses. */
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadModel } from '@variator/kernels/model';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { fetchHubModel, type HubModelOptions, readHubId } from './hub-model.ts';

const story = fileURLToPath(new URL('../../../models/stories-5m', import.meta.url));
const names = [
  'config.json',
  'generation_config.json',
  'model.safetensors',
  'tokenizer.json',
  'tokenizer_config.json',
];
const files = new Map(names.map((name) => [name, readFileSync(join(story, name))]));
const sha = '0123abc';
const id = { repository: 'someone/stories', revision: 'main' };

let server: Server;
let hubUrl: string;
let scratch: string;
const asked: { url: string; range: string; authorization: string }[] = [];
/** What the next requests for a file meet; '' is served as it should be. */
let trouble: (name: string, response: ServerResponse, bytes: Buffer) => boolean = () => false;

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'variator-hub-'));
  server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  hubUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  rmSync(scratch, { recursive: true, force: true });
});
afterEach(() => {
  asked.length = 0;
  trouble = () => false;
});

function answer(request: IncomingMessage, response: ServerResponse): void {
  const url = request.url ?? '';
  const { range = '', authorization = '' } = request.headers;
  asked.push({ url, range, authorization });
  if (url.startsWith('/api/models/someone/stories/revision/main')) {
    response.end(JSON.stringify({ sha, siblings: siblings() }));
    return;
  }
  if (url.startsWith('/api/models/someone/secret/')) {
    response.writeHead(401).end();
    return;
  }
  const name = /^\/someone\/stories\/resolve\/0123abc\/(.+)$/.exec(url)?.[1];
  if (name !== undefined) {
    response.writeHead(302, { location: `/blobs/${name}` }).end();
    return;
  }
  const blob = /^\/blobs\/(.+)$/.exec(url)?.[1] ?? '';
  const bytes = files.get(blob);
  if (bytes === undefined) {
    response.writeHead(404).end();
    return;
  }
  if (trouble(blob, response, bytes)) return;
  const from = Number(/^bytes=(\d+)-$/.exec(range)?.[1] ?? 0);
  response.writeHead(from > 0 ? 206 : 200, { 'content-length': bytes.length - from });
  response.end(bytes.subarray(from));
}

function siblings() {
  return [
    ...[...files].map(([rfilename, bytes]) => {
      if (rfilename.endsWith('.safetensors')) {
        const sha256 = createHash('sha256').update(bytes).digest('hex');
        return { rfilename, size: bytes.length, lfs: { sha256, size: bytes.length } };
      }
      const blobId = createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');
      return { rfilename, size: bytes.length, blobId };
    }),
    { rfilename: 'modeling_stories.py', size: 10, blobId: 'x' },
    { rfilename: 'pytorch_model.bin', size: 10, blobId: 'x' },
    { rfilename: '../outside.json', size: 10, blobId: 'x' },
  ];
}

const options = (name: string, more: Partial<HubModelOptions> = {}): HubModelOptions => ({
  hubUrl,
  token: null,
  cacheDir: join(scratch, name),
  onProgress: () => {},
  signal: new AbortController().signal,
  ...more,
});

test('what is a path and what a hub id', () => {
  expect(readHubId('someone/stories')).toEqual(id);
  expect(readHubId('Qwen/Qwen3-0.6B@v1.0')).toEqual({ repository: 'Qwen/Qwen3-0.6B', revision: 'v1.0' });
  for (const path of [
    story,
    './someone/stories',
    'a/b/c',
    'model.gguf',
    '../up/there',
    'a b/c',
    'some/..@x y',
  ]) {
    expect(readHubId(path)).toBe(null);
  }
});

test('a model is fetched with progress, served, and not fetched again; code and pickles are left where they are', async () => {
  const seen: number[] = [];
  const total = [...files.values()].reduce((sum, { length }) => sum + length, 0);
  const once = options('whole', {
    token: 'hub-token-of-mine',
    onProgress: ({ doneBytes, totalBytes }) => {
      expect(totalBytes).toBe(total);
      seen.push(doneBytes);
    },
  });
  const folder = await fetchHubModel(id, once);
  expect(readdirSync(folder).sort()).toEqual([...names].sort());
  expect(seen).toEqual([...seen].sort((a, b) => a - b));
  expect(seen.at(-1)).toBe(total);
  expect(asked[0]?.authorization).toBe('Bearer hub-token-of-mine');
  expect((await loadModel(folder)).modelId).toBe('someone/stories');
  asked.length = 0;
  expect(await fetchHubModel(id, once)).toBe(folder);
  expect(asked.map(({ url }) => url)).toEqual(['/api/models/someone/stories/revision/main?blobs=true']);
});

test('a file that is cut off goes on where it stopped', async () => {
  let cuts = 0;
  trouble = (name, response, bytes) => {
    if (name !== 'model.safetensors' || cuts > 0) return false;
    cuts += 1;
    response.writeHead(200, { 'content-length': bytes.length });
    response.write(bytes.subarray(0, 1_000_000), () => response.destroy());
    return true;
  };
  const folder = await fetchHubModel(id, options('cut'));
  const whole = files.get('model.safetensors') ?? Buffer.alloc(0);
  expect(readFileSync(join(folder, 'model.safetensors')).equals(whole)).toBe(true);
  const ranges = asked.filter(({ url }) => url === '/blobs/model.safetensors').map(({ range }) => range);
  expect(ranges).toHaveLength(2);
  expect(ranges[1]).toMatch(/^bytes=[1-9]\d*-$/);
});

test('silence is not waited for for ever, and what came before is used by the next start', async () => {
  trouble = (name, response, bytes) => {
    if (name !== 'model.safetensors') return false;
    response.writeHead(200, { 'content-length': bytes.length });
    response.write(bytes.subarray(0, 500_000));
    return true;
  };
  const ending = new AbortController();
  const quiet = options('silent', { silenceLimitMs: 200, signal: ending.signal });
  const fetching = fetchHubModel(id, quiet);
  const ended = expect(fetching).rejects.toThrow('The download was ended.');
  await new Promise((resolve) => setTimeout(resolve, 500));
  ending.abort();
  await ended;
  trouble = () => false;
  asked.length = 0;
  await fetchHubModel(id, options('silent'));
  expect(asked.find(({ url }) => url === '/blobs/model.safetensors')?.range).toBe('bytes=500000-');
});

test('wrong bytes are never given a name', async () => {
  let lies = 0;
  trouble = (name, response, bytes) => {
    if (name !== 'config.json') return false;
    lies += 1;
    response.end(Buffer.from(bytes).fill(0x20, 0, 5));
    return true;
  };
  await expect(fetchHubModel(id, options('lies'))).rejects.toThrow(
    /config\.json of someone\/stories could not be fetched: its checksum is \w+\.\.\., not the hub's/,
  );
  expect(lies).toBe(5);
  expect(
    readdirSync(join(scratch, 'lies', 'hub', 'models--someone--stories', 'snapshots', sha)),
  ).not.toContain('config.json');
}, 30_000);

test.each([
  ['someone/nothing', /has no model "someone\/nothing" at revision "main"/],
  ['someone/secret', /VARIATOR_HUB_TOKEN/],
])('%s is refused with a sentence', async (repository, sentence) => {
  await expect(fetchHubModel({ repository, revision: 'main' }, options('none'))).rejects.toThrow(sentence);
});

test('a hub that is not there is named', async () => {
  await expect(fetchHubModel(id, options('none', { hubUrl: 'http://127.0.0.1:9' }))).rejects.toThrow(
    /127\.0\.0\.1:9 cannot be reached/,
  );
});
