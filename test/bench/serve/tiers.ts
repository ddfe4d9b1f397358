/**
 * Who waits when there is more to do than the device can: tiers side by side, a greedy tenant beside a modest one, and many
 * equal tenants. On the real product with few places; what each had of the device is read from its request rows.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createTelemetryClient } from '@variator/clickhouse/client';
import { z } from 'zod';
import { generator, words } from '../../../apps/engine/cli/workload.ts';
import { type RunningProduct, startProduct } from '../../running-product.ts';
import type { Figure } from '../figure.ts';

const FOR_MS = 15_000;
const PLACES = 4;
const EQUAL_TENANTS = 20;

interface Group {
  readonly tenant: string;
  readonly serviceTier: 'priority' | 'default' | 'flex';
  /** Requests it keeps open, each followed by the next. */
  readonly clientCount: number;
}

interface Served {
  readonly tenant: string;
  readonly serviceTier: string;
  readonly count: number;
  readonly deviceMs: number;
  readonly queueP50Ms: number;
  readonly queueP99Ms: number;
}

export async function benchTiers(): Promise<readonly Figure[]> {
  const product = await startProduct({
    flags: [
      ...['--model', 'models/stories-5m', '--path', `balanced,maxRunningCount=${PLACES}`],
      ...['--trust-tenant-header', 'on', '--tenant-queue-share', '100'],
    ],
  });
  try {
    const tiers = await load(product, [
      { tenant: 'tiers', serviceTier: 'priority', clientCount: 2 },
      { tenant: 'tiers', serviceTier: 'default', clientCount: 16 },
      { tenant: 'tiers', serviceTier: 'flex', clientCount: 32 },
    ]);
    const pair = await load(product, [
      { tenant: 'greedy', serviceTier: 'default', clientCount: 200 },
      { tenant: 'modest', serviceTier: 'default', clientCount: PLACES },
    ]);
    const equals = await load(
      product,
      Array.from({ length: EQUAL_TENANTS }, (_, index) => ({
        tenant: `equal-${index}`,
        serviceTier: 'default' as const,
        clientCount: 2,
      })),
    );
    const of = (tier: string) => tiers.find(({ serviceTier }) => serviceTier === tier);
    const modest = pair.find(({ tenant }) => tenant === 'modest')?.deviceMs ?? 0;
    const share = modest / pair.reduce((sum, { deviceMs }) => sum + deviceMs, 0);
    const served = equals.map(({ deviceMs }) => deviceMs);
    const sum = served.reduce((total, ms) => total + ms, 0);
    const jain = sum ** 2 / (EQUAL_TENANTS * served.reduce((total, ms) => total + ms ** 2, 0));
    const fact = (name: string, measured: string, goal: string, isMet: boolean | null): Figure => ({
      figure: name,
      goal,
      measured,
      interval: `${PLACES} places, ${FOR_MS / 1000} s`,
      isMet,
    });
    const wait = (tier: string): string => {
      const { count, queueP50Ms, queueP99Ms } = of(tier) ?? { count: 0, queueP50Ms: 0, queueP99Ms: 0 };
      return `${queueP50Ms.toFixed(0)} / ${queueP99Ms.toFixed(0)} ms, ${count} answers`;
    };
    const p50 = (tier: string): number => of(tier)?.queueP50Ms ?? Number.NaN;
    return [
      fact('priority, 2 clients: wait p50 / p99', wait('priority'), '', null),
      fact('default, 16 clients: wait p50 / p99', wait('default'), '', null),
      fact('flex, 32 clients: wait p50 / p99', wait('flex'), '', null),
      fact(
        'the tiers wait in their order',
        `${p50('priority').toFixed(0)} < ${p50('default').toFixed(0)} < ${p50('flex').toFixed(0)} ms`,
        'priority < default < flex',
        p50('priority') < p50('default') && p50('default') < p50('flex'),
      ),
      fact(
        'share of a tenant with 4 requests open, beside one with 200',
        `${(100 * share).toFixed(1)} %`,
        '>= 45 %',
        share >= 0.45,
      ),
      fact(`${EQUAL_TENANTS} equal tenants, Jain's index`, jain.toFixed(3), '>= 0.95', jain >= 0.95),
    ];
  } finally {
    await product.stop();
    product.removeData();
  }
}

/** Keeps every group's requests open, then reads what each had of the device. */
async function load(product: RunningProduct, groups: readonly Group[]): Promise<readonly Served[]> {
  const random = generator(5);
  const until = performance.now() + FOR_MS;
  const startedAt = Date.now();
  const client = async ({ tenant, serviceTier }: Group): Promise<void> => {
    while (performance.now() < until) {
      const response = await fetch(`${product.inferenceUrl}/v1/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'x-tenant-id': tenant },
        body: JSON.stringify({
          model: product.modelId,
          prompt: words(30, random),
          max_tokens: 40,
          ignore_eos: true,
          service_tier: serviceTier,
        }),
        signal: AbortSignal.timeout(120_000),
      });
      await response.text();
      if (!response.ok) throw new Error(`${tenant} was answered ${response.status}`);
    }
  };
  await Promise.all(
    groups.flatMap((group) => Array.from({ length: group.clientCount }, () => client(group))),
  );
  const telemetry = createTelemetryClient(readFileSync(join(product.dataDir, 'clickhouse-url'), 'utf8'));
  try {
    // Rows come with a delay. What ended after the load had stopped had the device to itself: its waiting counts, its device time does not.
    await new Promise((resolve) => setTimeout(resolve, 3000));
    return await telemetry.query(
      `SELECT tenant, serviceTier, toUInt32(count()) AS count,
         sumIf(prefillDeviceMs + decodeDeviceMs + speculationWasteDeviceMs + recomputeDeviceMs,
           addMilliseconds(arrivedAt, e2eMs) < fromUnixTimestamp64Milli({endedAt:Int64})) AS deviceMs,
         quantile(0.5)(queueMs) AS queueP50Ms, quantile(0.99)(queueMs) AS queueP99Ms
       FROM requests
       WHERE arrivedAt >= fromUnixTimestamp64Milli({startedAt:Int64})
         AND tenant IN {tenants:Array(String)} AND outcome != 'refused'
       GROUP BY tenant, serviceTier`,
      { startedAt, endedAt: startedAt + FOR_MS, tenants: groups.map(({ tenant }) => tenant) },
      z.object({
        tenant: z.string(),
        serviceTier: z.string(),
        count: z.number(),
        deviceMs: z.number(),
        queueP50Ms: z.number(),
        queueP99Ms: z.number(),
      }),
    );
  } finally {
    await telemetry.close();
  }
}
