import { expect, test } from 'vitest';
import { KvBlocks } from './kv-blocks.ts';

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
