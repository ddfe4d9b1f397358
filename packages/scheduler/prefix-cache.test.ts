import { expect, test } from 'vitest';
import { type BlockHashing, sha256Hashing, virtualHashing } from './block-hashing.ts';
import { PrefixCache } from './prefix-cache.ts';

const hashings: [string, BlockHashing, RegExp][] = [
  ['sha256', sha256Hashing, /^[0-9a-f]{32}$/],
  ['virtual', virtualHashing, /^.{4}$/s],
];

test.each(hashings)(
  'names a block by its tokens, everything before them, the numerics and the salt (%s)',
  (_, hashing, form) => {
    const block = (parent: string, tokenIds: number[]) => hashing.block(parent, tokenIds, 0, tokenIds.length);
    const root = hashing.root('A', '');
    const names = [
      block(root, [1, 2]),
      block(root, [2, 1]),
      block(root, [1, 2, 0]),
      block(block(root, [1, 2]), [1, 2]),
      block(hashing.root('B', ''), [1, 2]),
      block(hashing.root('A', 'salt'), [1, 2]),
      block(hashing.root('As', 'alt'), [1, 2]),
    ];
    expect(new Set(names).size).toBe(names.length);
    expect(names[0]).toMatch(form);
    expect(block(root, [1, 2])).toBe(names[0]);
    expect(hashing.block(root, [7, 1, 2, 8], 1, 3)).toBe(names[0]);
  },
);

test('the virtual names of two hundred thousand blocks that differ little are all different', () => {
  const root = virtualHashing.root('A', '');
  const names = new Set<string>();
  const tokenIds = new Array<number>(16).fill(0);
  for (let index = 0; index < 200_000; index += 1) {
    tokenIds[index % 16] = 1 + (index >>> 4);
    names.add(virtualHashing.block(root, tokenIds, 0, 16));
  }
  expect(names.size).toBe(200_000);
});

test('knows the first block of equal contents until it is forgotten', () => {
  const cache = new PrefixCache(3);
  cache.enter('x', 1);
  cache.enter('x', 2);
  expect([cache.find('x'), cache.holds(1), cache.holds(2)]).toEqual([1, true, false]);
  expect(cache.takeChanges()).toEqual({ entered: ['x'], left: [] });
  cache.forget(2);
  cache.forget(1);
  expect(cache.find('x')).toBeNull();
  expect(cache.takeChanges()).toEqual({ entered: [], left: ['x'] });
});
