/** Uploads as nobody should send them, over a real socket: each is refused with a sentence and leaves nothing behind. */
import { readdirSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  completionLine,
  ended,
  linesOf,
  type ServedBatches,
  serveBatches,
  submitted,
} from './served-batches.fixture.ts';

const MAX_FILE_BYTES = 3_000_000;
const BOUNDARY = 'x-boundary';
let served: ServedBatches;

beforeAll(async () => {
  served = await serveBatches({ limits: { maxFileBytes: MAX_FILE_BYTES, maxLineCount: 2000 } });
});
afterAll(() => served.close());

const filePart = (content: string, name = 'file', filename: string | null = 'in.jsonl'): string =>
  `--${BOUNDARY}\r\ncontent-disposition: form-data; name="${name}"${filename === null ? '' : `; filename="${filename}"`}\r\n${
    filename === null ? '' : 'content-type: application/jsonl\r\n'
  }\r\n${content}\r\n`;
const field = (name: string, value: string): string =>
  `--${BOUNDARY}\r\ncontent-disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`;
const purpose = field('purpose', 'batch');
const end = `--${BOUNDARY}--\r\n`;

interface Answer {
  readonly status: number;
  readonly body: {
    readonly id?: string;
    readonly filename?: string;
    readonly error?: { code: string; param: string | null; message: string };
  };
}

/** Sends what it is given in one piece or as it comes, and reads the answer even where it comes before the end. */
function post(
  body: string | Buffer | Iterable<Buffer>,
  headers: Record<string, string> = { 'content-type': `multipart/form-data; boundary=${BOUNDARY}` },
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request(`${served.url}/v1/files`, { method: 'POST', headers }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => {
        resolve({ status: response.statusCode ?? 0, body: JSON.parse(Buffer.concat(chunks).toString()) });
      });
    });
    sent.on('error', reject);
    if (typeof body === 'string' || Buffer.isBuffer(body)) sent.end(body);
    else Readable.from(body).pipe(sent);
  });
}

const onDisk = (): string[] => readdirSync(join(served.folder, 'files'));
const listed = async (): Promise<string[]> => (await served.client.files.list()).data.map(({ id }) => id);

describe('an upload that is refused', () => {
  test.each<[string, string, string, string | null]>([
    ['no parts', end, 'missing_required_parameter', 'file'],
    ['no file', purpose + end, 'missing_required_parameter', 'file'],
    ['no purpose', filePart('a') + end, 'missing_required_parameter', 'purpose'],
    [
      'another purpose, said first',
      field('purpose', 'fine-tune') + filePart('a') + end,
      'invalid_value',
      'purpose',
    ],
    [
      'another purpose, said last',
      filePart('a') + field('purpose', 'assistants') + end,
      'invalid_value',
      'purpose',
    ],
    ['two purposes', purpose + purpose + filePart('a') + end, 'invalid_value', 'purpose'],
    ['two files', purpose + filePart('a') + filePart('b') + end, 'invalid_value', 'file'],
    ['an empty file', purpose + filePart('') + end, 'invalid_value', 'file'],
    ['a file that is a field', purpose + filePart('a', 'file', null) + end, 'invalid_type', 'file'],
    ['a file under another name', purpose + filePart('a', 'upload') + end, 'unsupported_parameter', 'upload'],
    ['an unknown field', purpose + field('mode', 'x') + filePart('a') + end, 'unsupported_parameter', 'mode'],
    [
      'a field of the prototype',
      purpose + field('__proto__', 'x') + filePart('a') + end,
      'invalid_multipart',
      null,
    ],
    ['a constructor', purpose + field('constructor', 'x') + filePart('a') + end, 'invalid_multipart', null],
    [
      'a hundred fields',
      field('purpose', 'batch').repeat(100) + filePart('a') + end,
      'invalid_value',
      'purpose',
    ],
    [
      'an expiry without an anchor',
      purpose + field('expires_after[seconds]', '3600') + filePart('a') + end,
      'invalid_value',
      'expires_after.anchor',
    ],
    [
      'an expiry of a second',
      purpose +
        field('expires_after[anchor]', 'created_at') +
        field('expires_after[seconds]', '1') +
        filePart('a') +
        end,
      'invalid_value',
      'expires_after.seconds',
    ],
    [
      'an expiry of 1e9999',
      purpose +
        field('expires_after[anchor]', 'created_at') +
        field('expires_after[seconds]', '1e9999') +
        filePart('a') +
        end,
      'invalid_value',
      'expires_after.seconds',
    ],
    ['no end', purpose + filePart('a'), 'invalid_multipart', null],
    ['an end in the middle of a part', purpose + filePart('abc').slice(0, -4), 'invalid_multipart', null],
    ['no multipart at all', '{"purpose":"batch"}', 'invalid_multipart', null],
    ['nothing', '', 'missing_required_parameter', 'file'],
  ])('for %s', async (_name, body, code, param) => {
    const before = [await listed(), onDisk()];
    const answer = await post(body);
    expect(answer).toMatchObject({ status: 400, body: { error: { code, param } } });
    expect(answer.body.error?.message).toMatch(/\.$/);
    expect([await listed(), onDisk()]).toEqual(before);
  });

  test.each([
    ['no boundary', { 'content-type': 'multipart/form-data' }, 400],
    ['JSON', { 'content-type': 'application/json' }, 400],
    ['plain text', { 'content-type': 'text/plain' }, 415],
  ])('for its content type: %s', async (_name, headers, status) => {
    const answer = await post('{}', headers);
    expect(answer.status).toBe(status);
    expect(answer.body.error?.code).toBeDefined();
  });

  test('for its size, whether it says so or not, and the reason can be read', async () => {
    const before = onDisk();
    const big = Buffer.alloc(MAX_FILE_BYTES + 1, 'a');
    const whole = Buffer.concat([
      Buffer.from(purpose),
      Buffer.from(filePart('').slice(0, -2)),
      big,
      Buffer.from(`\r\n${end}`),
    ]);
    expect(await post(whole)).toMatchObject({ status: 413, body: { error: { code: 'file_too_large' } } });
    const chunks = (count: number): Iterable<Buffer> => ({
      *[Symbol.iterator]() {
        yield Buffer.from(purpose + filePart('').slice(0, -2));
        for (let index = 0; index < count; index += 1) yield Buffer.alloc(65_536, 'a');
        yield Buffer.from(`\r\n${end}`);
      },
    });
    expect(await post(chunks(100))).toMatchObject({
      status: 413,
      body: { error: { code: 'file_too_large' } },
    });
    expect(onDisk()).toEqual(before);
    const exact = Buffer.concat([
      Buffer.from(purpose + filePart('').slice(0, -2)),
      big.subarray(1),
      Buffer.from(`\r\n${end}`),
    ]);
    expect((await post(exact)).status).toBe(200);
  });

  test('when its client leaves in the middle, nothing of it stays', async () => {
    const before = onDisk();
    const socket = connect(served.port, '127.0.0.1');
    socket.write(
      `POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=${BOUNDARY}\r\ncontent-length: 1000000\r\n\r\n${purpose}${filePart('a'.repeat(100_000)).slice(0, -2)}`,
    );
    while (onDisk().length === before.length) await new Promise((resolve) => setTimeout(resolve, 5));
    socket.destroy();
    while (onDisk().length > before.length) await new Promise((resolve) => setTimeout(resolve, 5));
    expect(onDisk()).toEqual(before);
  });
});

describe('a slow body', () => {
  let slow: ServedBatches;
  beforeAll(async () => {
    slow = await serveBatches({
      server: {
        limits: { bodyTimeLimitMs: 300 },
        apiKeys: [{ name: 'anna', key: 'key-of-anna' }],
      },
    });
  });
  afterAll(() => slow.close());

  /** Dribbles a body without end; `cut` resolves with the first line that came back once the server has had enough. */
  function dribble(path: string, headers: string): { readonly cut: Promise<string>; leave(): void } {
    const socket = connect(slow.port, '127.0.0.1');
    socket.write(`POST ${path} HTTP/1.1\r\nhost: x\r\n${headers}content-length: 100000\r\n\r\n`);
    const timer = setInterval(() => socket.write(' '), 50);
    const cut = new Promise<string>((resolve) => {
      let head = '';
      socket.on('data', (data: Buffer) => {
        head += data.toString();
      });
      socket.on('error', () => undefined);
      socket.on('close', () => {
        clearInterval(timer);
        resolve(head.split('\r\n')[0] ?? '');
      });
    });
    return { cut, leave: () => socket.destroy() };
  }
  const key = 'authorization: Bearer key-of-anna\r\n';
  const json = 'content-type: application/json\r\n';
  const multipart = `content-type: multipart/form-data; boundary=${BOUNDARY}\r\n`;

  test('is cut off with 408; an upload is given more time, but not without a key or an address', async () => {
    const upload = dribble('/v1/files', key + multipart);
    const cut = [
      dribble('/v1/chat/completions', key + json),
      dribble('/v1/files', multipart),
      dribble('/v1/nothing', key + json),
    ];
    const heads = await Promise.all(cut.map((each) => each.cut));
    expect(heads.map((head) => head.split(' ')[1])).toEqual(['408', '401', '404']);
    const files = () => readdirSync(join(slow.folder, 'files'));
    expect(files(), 'the upload goes on').toHaveLength(1);
    upload.leave();
    expect(await upload.cut).toBe('');
    while (files().length > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  });
});

describe('a name', () => {
  test.each([
    ['../../etc/passwd', 'passwd'],
    ['..\\\\..\\\\windows\\\\x.jsonl', 'x.jsonl'],
    ['/absolute/x.jsonl', 'x.jsonl'],
    ['..', 'upload.jsonl'],
    ['.', 'upload.jsonl'],
    ['a\u0000b\u202e.jsonl', 'ab.jsonl'],
    ['大型 👩‍👩.jsonl', '大型 👩👩.jsonl'],
    ['x'.repeat(1000), 'x'.repeat(255)],
  ])('%s is kept as a name only', async (asked, kept) => {
    const answer = await post(purpose + filePart('a', 'file', asked) + end);
    expect(answer).toMatchObject({ status: 200, body: { filename: kept } });
    const content = await served.client.files.content(answer.body.id ?? '');
    expect(content.headers.get('content-disposition')).toMatch(/^attachment; filename\*=UTF-8''[\w.%~!-]+$/);
    expect(await content.text()).toBe('a');
  });
});

describe('the lines of an upload', () => {
  test('a byte order mark, CRLF, empty lines and no last line end change nothing', async () => {
    const text = `\ufeff${completionLine('a')}\r\n\r\n \r\n${completionLine('b')}`;
    const batch = await ended(served.client, (await submitted(served.client, text)).id);
    expect(batch).toMatchObject({ status: 'completed', request_counts: { total: 2, completed: 2 } });
    const lines = await linesOf(served.client, batch.output_file_id);
    expect(lines.map((line) => line.custom_id)).toEqual(['a', 'b']);
  });

  test.each<[string, Buffer, string]>([
    [
      'bytes that are not UTF-8',
      Buffer.from(completionLine('a').replace('"a"', '"\xff"'), 'latin1'),
      'invalid_json_line',
    ],
    ['a lone surrogate as text', Buffer.from('{"custom_id":"\\ud800"}'), 'missing_required_parameter'],
    ['zeros', Buffer.alloc(100), 'invalid_json_line'],
    ['a key given twice', Buffer.from('{"custom_id":"a","custom_id":"b"}'), 'invalid_json_line'],
    ['a prototype', Buffer.from('{"__proto__":{"x":1}}'), 'invalid_json_line'],
    ['depth', Buffer.from('['.repeat(100_000)), 'invalid_json_line'],
    [
      'more than a line may have',
      Buffer.from(completionLine('a', { prompt: 'x'.repeat(2_200_000) })),
      'line_too_long',
    ],
  ])('with %s fail the batch by their number', async (_name, line, code) => {
    const content = Buffer.concat([Buffer.from(`${completionLine('good')}\n`), line]);
    const body = Buffer.concat([
      Buffer.from(purpose + filePart('').slice(0, -2)),
      content,
      Buffer.from(`\r\n${end}`),
    ]);
    const { body: file } = await post(body);
    const { id } = await served.client.batches.create({
      input_file_id: file.id ?? '',
      endpoint: '/v1/completions',
      completion_window: '24h',
    });
    const batch = await ended(served.client, id);
    expect(batch).toMatchObject({ status: 'failed', errors: { data: [{ code, line: 2 }] } });
  });

  test('a line of a megabyte runs, and 100,000 lines are too many, said soon while others are answered', async () => {
    const million = completionLine('long', { prompt: 'a', metadata: { note: 'x' }, stop: ['y'], user: 'u' });
    const padded = million.replace('"prompt"', `${' '.repeat(1_000_000)}"prompt"`);
    const long = await ended(served.client, (await submitted(served.client, padded)).id);
    expect(long).toMatchObject({ status: 'completed', request_counts: { completed: 1 } });

    const many = await submitted(served.client, '{}\n'.repeat(100_000));
    const online = await served.post('/v1/completions', { model: 'stories-5m', prompt: 'x', max_tokens: 2 });
    expect(online.status).toBe(200);
    const refused = await ended(served.client, many.id);
    expect(refused.status).toBe('failed');
    const sound = Array.from({ length: 2001 }, (_, index) => completionLine(`${index}`)).join('\n');
    const tooMany = await ended(served.client, (await submitted(served.client, sound)).id);
    expect(tooMany.errors?.data).toMatchObject([{ code: 'too_many_tasks', line: null }]);
  });
});
