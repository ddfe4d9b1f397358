/** What the proxy refuses, and that a body is bounded. */
import { describe, expect, test } from 'vitest';
import { errorBody, type ProxiedRequest, readBounded, refusalOf } from './proxy-rules.ts';

const read: ProxiedRequest = {
  method: 'GET',
  path: 'overview.summary',
  query: '?input=%7B%7D',
  host: '127.0.0.1:3000',
  origin: null,
  contentType: null,
};
const change: ProxiedRequest = {
  ...read,
  method: 'POST',
  path: 'proposals.approve',
  origin: 'http://127.0.0.1:3000',
  contentType: 'application/json',
};

describe('refusalOf', () => {
  test('lets the own pages read and change', () => {
    expect(refusalOf(read)).toBeNull();
    expect(refusalOf({ ...read, host: 'localhost:3000' })).toBeNull();
    expect(refusalOf({ ...read, host: '[::1]:3000' })).toBeNull();
    expect(refusalOf(change)).toBeNull();
  });

  test.each<[string, Partial<ProxiedRequest>, number]>([
    ['another page changes something', { origin: 'https://example.com' }, 403],
    ['another port of this machine changes something', { origin: 'http://127.0.0.1:4000' }, 403],
    ['a change comes without an Origin', { origin: null }, 403],
    ['a change comes from an opaque Origin', { origin: 'null' }, 403],
    [
      'a rebound DNS name is the Host',
      { host: 'attacker.example:3000', origin: 'http://attacker.example:3000' },
      403,
    ],
    ['the Host is missing', { host: null }, 403],
    ['a change is a plain form', { contentType: 'text/plain' }, 415],
    ['the path climbs', { path: '../v1/models' }, 400],
    ['the query is endless', { query: 'x'.repeat(20_000) }, 413],
  ])('refuses when %s', (_name, difference, status) => {
    expect(refusalOf({ ...change, ...difference })?.status).toBe(status);
  });
});

test('a body over its limit is not read to its end', async () => {
  let pulledCount = 0;
  const endless = new ReadableStream<Uint8Array>({
    pull(controller) {
      pulledCount += 1;
      controller.enqueue(new Uint8Array(1000));
    },
  });
  expect(await readBounded(endless, 5000)).toBeNull();
  expect(pulledCount).toBeLessThan(10);
});

test('a body within its limit arrives whole', async () => {
  const text = JSON.stringify({ proposalId: 'p1' });
  const bytes = await readBounded(new Response(text).body, 5000);
  expect(new TextDecoder().decode(bytes ?? undefined)).toBe(text);
});

test('an error has the shape the tRPC client reads', () => {
  expect(
    JSON.parse(errorBody(502, 'BAD_GATEWAY', 'The gateway does not answer.', 'overview.summary')),
  ).toEqual({
    error: {
      message: 'The gateway does not answer.',
      code: -32603,
      data: { code: 'BAD_GATEWAY', httpStatus: 502, path: 'overview.summary' },
    },
  });
});
