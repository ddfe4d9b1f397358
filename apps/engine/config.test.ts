import { describe, expect, it } from 'vitest';
import { ConfigError } from './config/config-error.ts';
import { deviceOfWorker } from './config/device-choice.ts';
import { helpText } from './config/options.ts';
import { readConfig } from './config.ts';

describe('configuration', () => {
  it('has good defaults with nothing given', () => {
    const config = readConfig([], {});
    expect(config).toMatchObject({
      host: '127.0.0.1',
      port: 8000,
      adminPort: 8001,
      webPort: 3000,
      model: null,
      path: null,
    });
    expect(config.kvMemoryBytes).toBe(1024 ** 3);
    expect(config).toMatchObject({
      maxBatchFileBytes: 200_000_000,
      maxBatchLineCount: 50_000,
      maxBatchStorageBytes: 2 * 1024 ** 3,
    });
  });

  it('lets a flag win over its variable', () => {
    expect(readConfig(['--port', '9000'], { VARIATOR_PORT: '9100' }).port).toBe(9000);
    expect(readConfig(['--port=9000'], {}).port).toBe(9000);
    expect(readConfig([], { VARIATOR_PORT: '9100' }).port).toBe(9100);
  });

  it('keeps an equals sign inside a value', () => {
    expect(readConfig(['--path=balanced,maxRunningCount=1'], {}).path).toBe('balanced,maxRunningCount=1');
  });

  it.each([
    [['--prot', '9000'], {}, /no flag --prot; did you mean --port\?/],
    [[], { VARIATOR_PROT: '1' }, /no variable VARIATOR_PROT; did you mean VARIATOR_PORT\?/],
    [['--port'], {}, /--port needs a value/],
    [['--port', 'x'], {}, /--port \(VARIATOR_PORT\) must be a whole number from 0 to 65535, not "x"/],
    [['--kv-memory', 'much'], {}, /size of at least 1MiB/],
    [['--device', 'cuda'], {}, /--device .* must be cpu, cuda:N or simulated:l4 .*, not "cuda"/],
    [['--device', 'cuda:x'], {}, /cuda:N/],
    [['--clickhouse-url', 'nowhere'], {}, /http or https URL/],
    [['--clickhouse-cluster', 'prod'], {}, /--clickhouse-cluster .* needs --clickhouse-url/],
    [
      ['--clickhouse-cluster', "c' x", '--clickhouse-url', 'http://a:8123'],
      {},
      /letters, digits and _, not "c' x"/,
    ],
    [['--otlp-endpoint', 'collector'], {}, /--otlp-endpoint .* must be an http or https URL/],
    [['--served-model-name', 'a,,b'], {}, /--served-model-name .* separated by commas; "" is not/],
    [['--served-model-name', 'a b'], {}, /"a b" is not/],
    [['--served-model-name', 'a/'], {}, /"a\/" is not/],
    [['--served-model-name', 'a,a'], {}, /each once/],
    [[], { VARIATOR_API_KEY: 'short' }, /VARIATOR_API_KEY must have at least 8/],
    [[], { VARIATOR_DEVICE_USD_PER_HOUR: '-1' }, /at least 0/],
    [[], { VARIATOR_API_KEY: 'ann:long-enough,bob:short' }, /VARIATOR_API_KEY must have at least 8/],
    [[], { VARIATOR_API_KEY: 'long-enough,bob:long-too' }, /one key, or several as NAME:KEY/],
    [[], { VARIATOR_API_KEY: 'ann:long-enough,ann:long-enough-too' }, /a name or a key twice/],
    [[], { VARIATOR_API_KEY: 'ann:long-enough,bob:long-enough' }, /a name or a key twice/],
    [['--max-queued-requests', '0'], {}, /--max-queued-requests .* from 1 to 100000, not "0"/],
    [['--max-queued-tokens', 'all'], {}, /--max-queued-tokens .* whole number/],
    [['--tenant-queue-share', '101'], {}, /--tenant-queue-share .* from 1 to 100/],
    [
      ['--request-timeout', '0'],
      {},
      /--request-timeout .* seconds from 0.001 to 604800.*leave it out for no limit/,
    ],
    [['--max-queue-wait', '-1'], {}, /--max-queue-wait .* seconds/],
    [['--max-queue-wait', '9', '--request-timeout', '5'], {}, /longer than --request-timeout .*no request/],
    [['--trust-tenant-header', 'yes'], {}, /--trust-tenant-header .* must be on or off, not "yes"/],
  ])('refuses %j %j with a sentence', (argv, env, message) => {
    expect(() => readConfig(argv, env as Record<string, string>)).toThrow(ConfigError);
    expect(() => readConfig(argv, env as Record<string, string>)).toThrow(message);
  });

  it('takes a GPU by its number, each further worker on this machine the next one, with all of its memory', () => {
    const config = readConfig(['--device', 'cuda:2'], {});
    expect(config.device).toEqual({ kind: 'cuda', text: 'cuda:2', ordinal: 2 });
    expect(config.kvMemoryBytes).toBe(Number.POSITIVE_INFINITY);
    expect(readConfig(['--device', 'cuda:2', '--kv-memory', '2MiB'], {}).kvMemoryBytes).toBe(2 * 1024 ** 2);
    expect([0, 1].map((index) => deviceOfWorker(config.device, index))).toEqual(['cuda:2', 'cuda:3']);
    const emulated = readConfig(['--device', 'cuda-emulated:0'], {});
    expect(emulated.device.kind).toBe('cuda-emulated');
    expect(emulated.kvMemoryBytes).toBe(1024 ** 3);
    expect(deviceOfWorker(readConfig([], {}).device, 1)).toBe('cpu');
  });

  it('takes several names for the model, the first as it is reported', () => {
    expect(readConfig([], {}).servedModelNames).toBeNull();
    expect(readConfig([], { VARIATOR_SERVED_MODEL_NAME: 'org/name, gpt-4o' }).servedModelNames).toEqual([
      'org/name',
      'gpt-4o',
    ]);
  });

  it('takes one key or several with names, and says none of them in a refusal', () => {
    const keysOf = (text: string) => readConfig([], { VARIATOR_API_KEY: text }).apiKeys;
    expect(keysOf('long-enough')).toEqual([{ name: 'default', key: 'long-enough' }]);
    expect(keysOf('ann:long-enough, bob:sk-1:2:3:4')).toEqual([
      { name: 'ann', key: 'long-enough' },
      { name: 'bob', key: 'sk-1:2:3:4' },
    ]);
    expect(readConfig([], {}).apiKeys).toEqual([]);
    expect(() => keysOf('ann:hush,bob:long-enough')).toThrow(/^(?!.*hush).*$/);
  });

  it('reads the bounds of the queue and spans of time', () => {
    const argv = ['--max-queued-requests', '8', '--request-timeout', '2.5', '--max-queue-wait', '1'];
    expect(readConfig([...argv, '--tenant-queue-share=25', '--trust-tenant-header=on'], {})).toMatchObject({
      maxQueuedRequestCount: 8,
      maxQueuedTokenCount: 1_000_000,
      tenantQueueShare: 0.25,
      requestTimeoutMs: 2500,
      maxQueueWaitMs: 1000,
      isTenantHeaderTrusted: true,
    });
    expect(readConfig([], {})).toMatchObject({ requestTimeoutMs: null, maxQueueWaitMs: null });
  });

  it('leaves variables of others alone', () => {
    expect(() => readConfig([], { PATH: '/bin', NODE_ENV: 'test' })).not.toThrow();
  });

  it('teaches every public option in --help and none of the internal ones', () => {
    for (const word of [
      '--model',
      'VARIATOR_MODEL',
      '--kv-memory',
      'VARIATOR_ADMIN_KEY',
      '--max-model-len',
    ]) {
      expect(helpText()).toContain(word);
    }
    expect(helpText()).not.toContain('--link');
  });
});
