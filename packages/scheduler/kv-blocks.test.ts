import { expect, test } from 'vitest';
import { KvBlocks } from './kv-blocks.ts';
import { seededRandom } from './paper-device.ts';

test('hands out every block once, then none', () => {
  const blocks = new KvBlocks(3);
  expect([blocks.allocate(), blocks.allocate(), blocks.allocate(), blocks.allocate()]).toEqual([
    0,
    1,
    2,
    null,
  ]);
  expect([blocks.usedCount, blocks.availableCount]).toEqual([3, 0]);
});

test('reuses free blocks before kept ones, and of these the least recently released first', () => {
  const blocks = new KvBlocks(3);
  for (let count = 0; count < 3; count += 1) blocks.allocate();
  blocks.release(1, 'keep');
  blocks.release(0, 'keep');
  blocks.release(2, 'discard');
  expect([blocks.allocate(), blocks.allocate(), blocks.allocate()]).toEqual([2, 1, 0]);
});

test('keeps a block that is retained while idle', () => {
  const blocks = new KvBlocks(2);
  blocks.allocate();
  blocks.allocate();
  blocks.release(0, 'keep');
  blocks.retain(0);
  blocks.retain(0);
  expect(blocks.referenceCount(0)).toBe(2);
  expect(blocks.allocate()).toBeNull();
  blocks.release(0, 'discard');
  expect(blocks.allocate()).toBeNull();
  blocks.release(0, 'discard');
  expect(blocks.allocate()).toBe(0);
});

test('refuses a release too many and a block that is not there', () => {
  const blocks = new KvBlocks(2);
  expect(() => blocks.release(0, 'keep')).toThrow('released more often');
  expect(() => blocks.retain(7)).toThrow('no KV block 7');
});

test('agrees with a plain list over ten thousand random moves', () => {
  const random = seededRandom(11);
  const blocks = new KvBlocks(17);
  const idle: number[] = [];
  let free = Array.from({ length: 17 }, (_, index) => 16 - index);
  const held = new Map<number, number>();
  for (let move = 0; move < 10_000; move += 1) {
    const draw = random();
    const [some] = [...held.keys()].sort(() => random() - 0.5);
    if (draw < 0.45) {
      const expected = free.pop() ?? idle.shift() ?? null;
      expect(blocks.allocate()).toBe(expected);
      if (expected !== null) held.set(expected, 1);
    } else if (draw < 0.55 && idle.length > 0) {
      const [kept = 0] = idle.splice(Math.floor(random() * idle.length), 1);
      blocks.retain(kept);
      held.set(kept, 1);
    } else if (some !== undefined) {
      const count = (held.get(some) ?? 1) - 1;
      const isKept = random() < 0.7;
      blocks.release(some, isKept ? 'keep' : 'discard');
      if (count > 0) held.set(some, count);
      else {
        held.delete(some);
        if (isKept) idle.push(some);
        else free = [...free, some];
      }
    }
    expect(blocks.availableCount).toBe(free.length + idle.length);
  }
});
