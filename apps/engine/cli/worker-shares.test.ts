import { expect, it } from 'vitest';
import { ConfigError } from '../config/config-error.ts';
import { readConfig } from '../config.ts';
import { workerShares } from './worker-shares.ts';

const GiB = 1024 ** 3;

it.each([
  [1, 2, GiB, { threadCount: 2, kvMemoryBytes: GiB, line: '' }],
  [0, 2, GiB, { threadCount: 2, kvMemoryBytes: GiB, line: '' }],
  [
    2,
    5,
    GiB,
    {
      threadCount: 2,
      kvMemoryBytes: GiB / 2,
      line: '2 workers, each with 2 threads and 512 MiB for its KV cache',
    },
  ],
  [
    2,
    2,
    GiB,
    {
      threadCount: 1,
      kvMemoryBytes: GiB / 2,
      line: '2 workers, each with 1 thread and 512 MiB for its KV cache',
    },
  ],
])('%i workers share %i threads and the KV memory', (workerCount, threadCount, kvMemoryBytes, shares) => {
  expect(
    workerShares({ workerCount, threadCount, kvMemoryBytes, device: { kind: 'cpu', text: 'cpu' } }),
  ).toEqual(shares);
});

it('a worker without a thread is refused in one sentence that names what to change', () => {
  const share = () =>
    workerShares({
      workerCount: 3,
      threadCount: 2,
      kvMemoryBytes: GiB,
      device: { kind: 'cpu', text: 'cpu' },
    });
  expect(share).toThrow(ConfigError);
  expect(share).toThrow(
    /3 workers need at least 3 threads, and there are 2: lower --workers .* or raise --threads/,
  );
});

it('simulated workers need no threads of their own, and say what they are', () => {
  const { device } = readConfig(['--device', 'simulated:h100,parameters=8e9'], {});
  const shares = workerShares({ workerCount: 8, threadCount: 2, kvMemoryBytes: GiB, device });
  expect(shares).toMatchObject({
    threadCount: 1,
    line: expect.stringMatching(/^Simulated: 8 x simulated:h100/),
  });
});

it('workers on GPUs share nothing: each has its own', () => {
  const { device } = readConfig(['--device', 'cuda:1'], {});
  const shared = { threadCount: 2, kvMemoryBytes: Number.POSITIVE_INFINITY, device };
  expect(workerShares({ workerCount: 3, ...shared })).toEqual({
    threadCount: 1,
    kvMemoryBytes: Number.POSITIVE_INFINITY,
    line: '3 workers, on cuda:1 to cuda:3',
  });
  expect(workerShares({ workerCount: 1, ...shared }).line).toBe('');
});
