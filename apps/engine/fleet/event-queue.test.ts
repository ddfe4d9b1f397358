import { expect, it } from 'vitest';
import { eventQueue } from './event-queue.ts';

it('gives events in order and ends after the last', async () => {
  const queue = eventQueue<number>(10, () => {});
  queue.push(1);
  const read: number[] = [];
  const reading = (async () => {
    for await (const event of queue) read.push(event);
  })();
  queue.push(2);
  await new Promise((resolve) => setImmediate(resolve));
  queue.push(3);
  queue.end();
  await reading;
  expect(read).toEqual([1, 2, 3]);
});

it('tells once when the reader leaves before the end', async () => {
  let leftCount = 0;
  const queue = eventQueue<number>(10, () => {
    leftCount += 1;
  });
  queue.push(1);
  queue.push(2);
  for await (const event of queue) if (event === 1) break;
  expect(leftCount).toBe(1);
});

it('ends a reader that is too far behind with an error, and holds no more than the bound', async () => {
  const queue = eventQueue<number>(3, () => {});
  for (let event = 0; event < 10; event += 1) queue.push(event);
  const read: number[] = [];
  await expect(
    (async () => {
      for await (const event of queue) read.push(event);
    })(),
  ).rejects.toThrow(/3 events behind/);
  expect(read).toEqual([0, 1, 2]);
});
