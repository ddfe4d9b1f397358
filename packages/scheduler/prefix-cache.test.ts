import { expect, test } from 'vitest';
import { blockHash, PrefixCache, rootHash } from './prefix-cache.ts';

test('names a block by its tokens, everything before them, the numerics and the salt', () => {
  const root = rootHash('A', '');
  const names = [
    blockHash(root, [1, 2]),
    blockHash(root, [2, 1]),
    blockHash(root, [1, 2, 0]),
    blockHash(blockHash(root, [1, 2]), [1, 2]),
    blockHash(rootHash('B', ''), [1, 2]),
    blockHash(rootHash('A', 'salt'), [1, 2]),
    blockHash(rootHash('As', 'alt'), [1, 2]),
  ];
  expect(new Set(names).size).toBe(names.length);
  expect(names[0]).toMatch(/^[0-9a-f]{32}$/);
  expect(blockHash(root, [1, 2])).toBe(names[0]);
});

test('knows the first block of equal contents until it is forgotten', () => {
  const cache = new PrefixCache();
  cache.enter('x', 1);
  cache.enter('x', 2);
  expect([cache.find('x'), cache.holds(1), cache.holds(2)]).toEqual([1, true, false]);
  expect(cache.takeChanges()).toEqual({ entered: ['x'], left: [] });
  cache.forget(2);
  cache.forget(1);
  expect(cache.find('x')).toBeNull();
  expect(cache.takeChanges()).toEqual({ entered: [], left: ['x'] });
});
