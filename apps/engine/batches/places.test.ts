import { expect, test } from 'vitest';
import { Places } from './places.ts';

const never = new AbortController().signal;
const settled = async <T>(promise: Promise<T>): Promise<T | 'waits'> =>
  Promise.race([promise, new Promise<'waits'>((resolve) => setTimeout(() => resolve('waits'), 0))]);

test('so many at once, the next in the order in which they came', async () => {
  const places = new Places(2, 2);
  const [a, b] = [await places.take('x', never), await places.take('y', never)];
  const [c, d] = [places.take('x', never), places.take('y', never)];
  expect(await settled(c)).toBe('waits');
  b?.();
  b?.();
  expect(await settled(c)).toBeTypeOf('function');
  expect(await settled(d)).toBe('waits');
  a?.();
  expect(await settled(d)).toBeTypeOf('function');
});

test('whoever has all that one owner may have is passed by others', async () => {
  const places = new Places(3, 2);
  const first = await places.take('x', never);
  await places.take('x', never);
  const third = places.take('x', never);
  expect(await settled(third)).toBe('waits');
  expect(await settled(places.take('y', never))).toBeTypeOf('function');
  first?.();
  expect(await settled(third)).toBeTypeOf('function');
});

test('who gives up waiting takes no place', async () => {
  const places = new Places(1, 1);
  const held = await places.take('x', never);
  const leaving = new AbortController();
  const left = places.take('x', leaving.signal);
  const next = places.take('x', never);
  leaving.abort();
  expect(await left).toBeNull();
  expect(await places.take('x', leaving.signal)).toBeNull();
  held?.();
  expect(await settled(next)).toBeTypeOf('function');
});
