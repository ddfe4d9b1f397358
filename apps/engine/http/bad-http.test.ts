/** What no client library sends: heads, framings, methods, paths and bodies written by hand onto a socket. */
import { connect } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { MODEL, type Served, serve } from './served.fixture.ts';

const MAX_BODY_BYTES = 100_000;
let served: Served;
beforeAll(async () => {
  served = await serve((spec) => ({ tokenIds: [437, 464, 261], gapMs: spec.maxTokens > 100 ? 4 : 1 }), {
    limits: { maxBodyBytes: MAX_BODY_BYTES, bodyTimeLimitMs: 300 },
  });
});
afterAll(() => served.close());

const json = JSON.stringify({ model: MODEL, prompt: 'Hi', max_tokens: 1 });
const head = (line: string, ...headers: readonly string[]): string =>
  `${[line, 'host: x', ...headers].join('\r\n')}\r\n\r\n`;
const post = (headers: readonly string[], body: string): string =>
  `${head('POST /v1/completions HTTP/1.1', ...headers)}${body}`;
const typed = 'content-type: application/json';
const sized = (body: string): string => `content-length: ${Buffer.byteLength(body)}`;

/** What is sent, and the status that it gets. */
const cases: readonly (readonly [name: string, bytes: string, status: number])[] = [
  ['no HTTP at all', 'HELLO\r\n\r\n', 400],
  ['a TLS greeting', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 400],
  ['HTTP/2 without being asked', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 400],
  ['an HTTP version that does not exist', 'GET /health HTTP/9.9\r\nhost: x\r\n\r\n', 400],
  ['no host', 'GET /health HTTP/1.1\r\n\r\n', 400],
  ['two lengths', post([typed, 'content-length: 5', 'content-length: 6'], '{"a":1'), 400],
  [
    'a length and chunks, as smugglers send',
    post([typed, 'content-length: 5', 'transfer-encoding: chunked'], '0\r\n\r\nGET /'),
    400,
  ],
  ['chunks and a length', post([typed, 'transfer-encoding: chunked', 'content-length: 4'], '0\r\n\r\n'), 400],
  ['an encoding that hides chunks', post([typed, 'transfer-encoding: xchunked'], '0\r\n\r\n'), 400],
  ['chunked twice', post([typed, 'transfer-encoding: chunked, identity'], '0\r\n\r\n'), 400],
  ['a negative length', post([typed, 'content-length: -1'], ''), 400],
  ['a length in hexadecimal', post([typed, 'content-length: 0x10'], json), 400],
  ['a length with a plus', post([typed, `content-length: +${json.length}`], json), 400],
  ['a length beyond any number', post([typed, 'content-length: 99999999999999999999'], ''), 400],
  [
    'a chunk size that is no number',
    post([typed, 'transfer-encoding: chunked'], 'zz\r\nabc\r\n0\r\n\r\n'),
    400,
  ],
  [
    'a chunk size beyond any number',
    post([typed, 'transfer-encoding: chunked'], 'ffffffffffffffffff\r\n'),
    400,
  ],
  ['a chunk longer than it says', post([typed, 'transfer-encoding: chunked'], '2\r\n{}{}\r\n0\r\n\r\n'), 400],
  ['a header folded over two lines', head('GET /health HTTP/1.1', 'x-a: b\r\n c'), 400],
  ['a space before the colon', head('GET /health HTTP/1.1', 'content-length : 0'), 400],
  ['a header name with a space', head('GET /health HTTP/1.1', 'x a: b'), 400],
  ['a NUL in a header', head('GET /health HTTP/1.1', 'x-a: b\0c'), 400],
  ['a carriage return in a header', head('GET /health HTTP/1.1', 'x-a: b\rc'), 400],
  ['lines that end without carriage return', 'GET /health HTTP/1.1\nhost: x\n\n', 400],
  ['a header of 40,000 bytes', head('GET /health HTTP/1.1', `x-a: ${'a'.repeat(40_000)}`), 431],
  [
    'ten thousand headers',
    head('GET /health HTTP/1.1', ...Array.from({ length: 10_000 }, (_, i) => `x-${i}: a`)),
    431,
  ],
  ['a path of 40,000 bytes', head(`GET /${'a'.repeat(40_000)} HTTP/1.1`), 431],
  ['a path with a space', head('GET /v1/ models HTTP/1.1'), 400],
  ['a path with a NUL', head('GET /v1/models/%00 HTTP/1.1'), 404],
  ['a path with a broken escape', head('GET /v1/models/%zz HTTP/1.1'), 400],
  ['a path that climbs', head('GET /v1/../../etc/passwd HTTP/1.1'), 404],
  ['a path that climbs in escapes', head('GET /v1/models/..%2f..%2fetc%2fpasswd HTTP/1.1'), 404],
  ['a path in bytes that are not UTF-8', head('GET /v1/models/%ff%fe HTTP/1.1'), 400],
  ['a path in capitals', head('GET /V1/MODELS HTTP/1.1'), 404],
  ['a path with two slashes', head('GET //v1/models HTTP/1.1'), 404],
  ['a path with a slash at its end', head('POST /v1/completions/ HTTP/1.1', typed, sized(json)) + json, 404],
  ['a method that does not exist', head('BREW /v1/models HTTP/1.1'), 400],
  ['a method of WebDAV', head('PROPFIND /v1/models HTTP/1.1'), 404],
  ['TRACE', head('TRACE /v1/models HTTP/1.1'), 405],
  ['PUT', head('PUT /v1/completions HTTP/1.1', typed, sized(json)) + json, 405],
  ['DELETE of the model', head(`DELETE /v1/models/${MODEL} HTTP/1.1`), 405],
  ['a body of no type', post([sized(json)], json), 415],
  ['a body of text', post(['content-type: text/plain', sized(json)], json), 415],
  ['a body of XML', post(['content-type: application/xml', sized(json)], json), 415],
  ['a form', post(['content-type: multipart/form-data; boundary=a', sized(json)], json), 415],
  ['a type that is none', post(['content-type: ;;;', sized(json)], json), 415],
  ['a type of 8,000 bytes', post([`content-type: ${'a'.repeat(8000)}/b`, sized(json)], json), 415],
  [
    'a body that is compressed',
    post([typed, 'content-encoding: gzip', 'content-length: 3'], '\x1f\x8b\x08'),
    400,
  ],
  ['a body in UTF-16', post([typed, 'content-length: 4'], '{\0}\0'), 400],
  ['an empty body', post([typed, 'content-length: 0'], ''), 400],
  [
    'a length over the limit, before any byte of it',
    post([typed, `content-length: ${MAX_BODY_BYTES + 1}`], ''),
    413,
  ],
  [
    'chunks that go over the limit',
    post(
      [typed, 'transfer-encoding: chunked'],
      `${`${(60_000).toString(16)}\r\n${'a'.repeat(60_000)}\r\n`.repeat(2)}`,
    ),
    413,
  ],
  ['a body that stops half way', post([typed, 'content-length: 500'], '{"model":'), 408],
  ['chunks that never end', post([typed, 'transfer-encoding: chunked'], '5\r\n{"mod\r\n'), 408],
  [
    '32 levels and one',
    post([typed, sized(`${'['.repeat(33)}${']'.repeat(33)}`)], `${'['.repeat(33)}${']'.repeat(33)}`),
    400,
  ],
  [
    '10,000 colons',
    post([typed, sized(`{${'"a":1,'.repeat(10_001)}"b":1}`)], `{${'"a":1,'.repeat(10_001)}"b":1}`),
    400,
  ],
  [
    'a key of 50,000 characters',
    post([typed, sized(`{"${'k'.repeat(50_000)}":1}`)], `{"${'k'.repeat(50_000)}":1}`),
    400,
  ],
  [
    'a number of 50,000 digits',
    post([typed, sized(`{"seed":${'9'.repeat(50_000)}}`)], `{"seed":${'9'.repeat(50_000)}}`),
    400,
  ],
  [
    'JSON behind a byte order mark, twice',
    post([typed, 'content-length: 8'], '\xef\xbb\xbf\xef\xbb\xbf{}'),
    400,
  ],
  ['a second value behind the first', post([typed, sized(`${json}{}`)], `${json}{}`), 400],
  ['a comment', post([typed, sized(`/**/${json}`)], `/**/${json}`), 400],
  ['single quotes', post([typed, sized("{'model':1}")], "{'model':1}"), 400],
];

test.each(cases)('%s', async (_name, bytes, status) => {
  const answer = await exchange(bytes);
  expect(answer.slice(0, 400)).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
  const [headers = '', body = ''] = answer.split('\r\n\r\n');
  expect(headers.toLowerCase()).toMatch(/\r\nx-request-id: req_[0-9a-f]{32}/);
  const { error } = JSON.parse(body) as { error: { message: string } };
  expect(Object.keys(error).sort()).toEqual(['code', 'message', 'param', 'type']);
  expect(error.message.length).toBeGreaterThan(10);
});

test('while all of it comes in, another stream goes on and its text is the same', async () => {
  const stream = () =>
    served.post('/v1/completions', {
      model: MODEL,
      prompt: 'Hi',
      max_tokens: 150,
      stream: true,
      temperature: 0,
    });
  const textOf = async (response: Response) =>
    [...(await response.text()).matchAll(/"text":"((?:[^"\\]|\\.)*)"/g)].map(([, text]) => text).join('');
  const alone = await textOf(await stream());
  const beside = stream().then(textOf);
  await Promise.all(cases.map(([, bytes]) => exchange(bytes)));
  expect(await beside).toBe(alone);
  expect(alone.length).toBeGreaterThan(150);
  expect(served.logged).toEqual([]);
  await served.rowsReach(served.fleet.submitted.length);
  expect(served.fleet.activeCount()).toBe(0);
  expect((await fetch(`${served.url}/health`)).status).toBe(200);
});

/** What the server says until it closes, or until it has answered a request whose connection it keeps. */
function exchange(bytes: string): Promise<string> {
  return new Promise((resolve) => {
    let received = '';
    const socket = connect(served.port, '127.0.0.1', () => socket.write(Buffer.from(bytes, 'latin1')));
    const limit = setTimeout(() => socket.destroy(), 5000);
    socket.on('data', (chunk) => {
      received += chunk.toString('latin1');
      const length = /\r\ncontent-length: (\d+)/i.exec(received)?.[1];
      const at = received.indexOf('\r\n\r\n');
      if (length !== undefined && at >= 0 && received.length >= at + 4 + Number(length)) socket.destroy();
    });
    socket.on('error', () => {
      // The server may close while we still write; what it said before counts.
    });
    socket.on('close', () => {
      clearTimeout(limit);
      resolve(received);
    });
  });
}
