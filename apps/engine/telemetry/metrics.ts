/**
 * What Prometheus scrapes: vLLM's names and labels where we have the same thing, so that its boards and pickers work, and
 * our own under `variator:`. Fed where rows are made (a step's, a request's end) and with each gap between tokens; gauges
 * are read from their owners at the scrape. It keeps nothing else, so it cannot disagree with the rows.
 * Label sets are fixed: never a tenant, a session or a request.
 */
import type { ServedRequestRow } from '@variator/clickhouse/request-row';
import type { StepRow } from '@variator/clickhouse/step-row';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

/** A worker as its heartbeat told. */
export interface WorkerGauges {
  readonly workerId: string;
  readonly runningCount: number;
  readonly waitingCount: number;
  readonly kvUsedBlockCount: number;
  readonly pathId: string;
  readonly envelope: { readonly kvBlockCount: number; readonly kvBlockSize: number };
}

export interface MetricsSources {
  /** As answers report it. */
  readonly modelName: string;
  readonly maxModelLenTokens: number;
  readonly workers: () => readonly WorkerGauges[];
  readonly telemetry: { pendingRowCount(): number; droppedRowCount(): number };
}

export interface Metrics {
  readonly contentType: string;
  stepSettled(row: StepRow): void;
  requestEnded(row: ServedRequestRow): void;
  tokenGap(gapMs: number): void;
  /** A response with an error, by its code. */
  refused(code: string): void;
  /** A refused request that has no row, since too many come. */
  refusalRowSkipped(): void;
  /** The exposition format. */
  text(): Promise<string>;
}

const ttftBuckets = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640,
  2560,
];
const gapBuckets = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20,
  40, 80,
];
/** vLLM's begin at 0.3 s, where a small model has long ended. */
const latencyBuckets = [
  0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240,
  480, 960, 1920, 7680,
];
const iterationBuckets = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384];

const finishedReasons = {
  stop: 'stop',
  length: 'length',
  cancelled: 'abort',
  expired: 'abort',
  error: 'error',
} as const;

/** 1, 2, 5, 10, ... up to the limit. */
function lengthBuckets(most: number): number[] {
  const buckets: number[] = [];
  for (let scale = 1; scale <= most; scale *= 10) {
    for (const digit of [1, 2, 5]) if (digit * scale <= most) buckets.push(digit * scale);
  }
  return buckets;
}

export function createMetrics(sources: MetricsSources): Metrics {
  const { modelName } = sources;
  const registers = [new Registry()];
  const [registry = new Registry()] = registers;
  collectDefaultMetrics({ register: registry });

  const labels = (engine: string) => ({ model_name: modelName, engine });
  const counter = (name: string, help: string, extra: readonly string[] = []) =>
    new Counter({ name, help, labelNames: ['model_name', 'engine', ...extra], registers });
  const histogram = (name: string, help: string, buckets: number[]) =>
    new Histogram({ name, help, labelNames: ['model_name', 'engine'], buckets, registers });
  const gauge = (name: string, help: string, read: (worker: WorkerGauges) => number) =>
    new Gauge({
      name,
      help,
      labelNames: ['model_name', 'engine'],
      registers,
      collect() {
        this.reset();
        for (const worker of sources.workers()) this.set(labels(worker.workerId), read(worker));
      },
    });

  gauge('vllm:num_requests_running', 'Sequences that a worker computes', (worker) => worker.runningCount);
  gauge('vllm:num_requests_waiting', 'Sequences that wait in a worker', (worker) => worker.waitingCount);
  gauge('vllm:kv_cache_usage_perc', 'KV blocks in use, 1 is all of them', ({ kvUsedBlockCount, envelope }) =>
    envelope.kvBlockCount === 0 ? 0 : kvUsedBlockCount / envelope.kvBlockCount,
  );
  new Gauge({
    name: 'vllm:cache_config_info',
    help: 'The KV cache of each worker, always 1',
    labelNames: ['model_name', 'engine', 'block_size', 'num_gpu_blocks', 'enable_prefix_caching'],
    registers,
    collect() {
      this.reset();
      for (const { workerId, envelope } of sources.workers()) {
        const config = {
          block_size: String(envelope.kvBlockSize),
          num_gpu_blocks: String(envelope.kvBlockCount),
          enable_prefix_caching: 'True',
        };
        this.set({ ...labels(workerId), ...config }, 1);
      }
    },
  });

  const promptTokens = counter('vllm:prompt_tokens_total', 'Prompt tokens of ended requests');
  const cachedTokens = counter('vllm:prompt_tokens_cached_total', 'Prompt tokens from the prefix cache');
  const cacheQueries = counter(
    'vllm:prefix_cache_queries_total',
    'Prompt tokens looked up in the prefix cache',
  );
  const cacheHits = counter('vllm:prefix_cache_hits_total', 'Prompt tokens found in the prefix cache');
  const generationTokens = counter('vllm:generation_tokens_total', 'Tokens sampled, from the steps');
  const draftTokens = counter('vllm:spec_decode_num_draft_tokens_total', 'Guessed tokens verified');
  const acceptedTokens = counter(
    'vllm:spec_decode_num_accepted_tokens_total',
    'Guessed tokens that were right',
  );
  const preemptions = counter('vllm:num_preemptions_total', 'Sequences pushed back to waiting');
  const successes = counter('vllm:request_success_total', 'Ended requests by how they ended', [
    'finished_reason',
  ]);
  const iterationTokens = histogram(
    'vllm:iteration_tokens_total',
    'Tokens computed in a step',
    iterationBuckets,
  );
  const ttft = histogram('vllm:time_to_first_token_seconds', 'From arrival to the first token', ttftBuckets);
  // Tokens arrive without the name of their worker.
  const itl = new Histogram({
    name: 'vllm:inter_token_latency_seconds',
    help: 'Between two tokens of a request',
    labelNames: ['model_name'],
    buckets: gapBuckets,
    registers,
  });
  const tpot = histogram(
    'vllm:request_time_per_output_token_seconds',
    'Mean gap between the tokens of a request',
    gapBuckets,
  );
  const e2e = histogram('vllm:e2e_request_latency_seconds', 'From arrival to the end', latencyBuckets);
  const queue = histogram('vllm:request_queue_time_seconds', 'Until first scheduled', latencyBuckets);
  const prefill = histogram(
    'vllm:request_prefill_time_seconds',
    'From first scheduled to the first token',
    latencyBuckets,
  );
  const decode = histogram(
    'vllm:request_decode_time_seconds',
    'From the first to the last token',
    latencyBuckets,
  );
  const inference = histogram('vllm:request_inference_time_seconds', 'Prefill and decode', latencyBuckets);
  const lengths = lengthBuckets(sources.maxModelLenTokens);
  const promptLengths = histogram('vllm:request_prompt_tokens', 'Prompt tokens of a request', lengths);
  const answerLengths = histogram('vllm:request_generation_tokens', 'Generated tokens of a request', lengths);
  const longestAnswers = histogram(
    'vllm:request_max_num_generation_tokens',
    'Generated tokens of a sequence',
    lengths,
  );

  new Gauge({
    name: 'variator:workers',
    help: 'Workers that have joined',
    registers,
    collect() {
      this.set(sources.workers().length);
    },
  });
  new Gauge({
    name: 'variator:execution_path_info',
    help: 'The live execution path of each worker, always 1',
    labelNames: ['engine', 'path_id'],
    registers,
    collect() {
      this.reset();
      for (const { workerId, pathId } of sources.workers())
        this.set({ engine: workerId, path_id: pathId }, 1);
    },
  });
  new Gauge({
    name: 'variator:telemetry_rows_pending',
    help: 'Rows that wait for ClickHouse',
    registers,
    collect() {
      this.set(sources.telemetry.pendingRowCount());
    },
  });
  new Counter({
    name: 'variator:telemetry_rows_dropped_total',
    help: 'Rows given up since the start',
    registers,
    collect() {
      this.reset();
      this.inc(sources.telemetry.droppedRowCount());
    },
  });
  const refusals = new Counter({
    name: 'variator:requests_refused_total',
    help: 'Responses with an error, by its code',
    labelNames: ['code'],
    registers,
  });
  const skippedRefusals = new Counter({
    name: 'variator:refusal_rows_skipped_total',
    help: 'Refused requests without a row, since too many came in a second',
    registers,
  });
  const withinObjectives = new Counter({
    name: 'variator:requests_within_objectives_total',
    help: 'Ended requests by whether they met their objectives',
    labelNames: ['service_tier', 'is_within'],
    registers,
  });
  const deviceSeconds = new Counter({
    name: 'variator:device_seconds_total',
    help: 'Device time of steps by what it was spent on',
    labelNames: ['engine', 'use'],
    registers,
  });

  return {
    contentType: registry.contentType,
    stepSettled(row) {
      const engine = row.workerId;
      if (row.kind !== 'serve') {
        deviceSeconds.inc({ engine, use: row.kind }, row.deviceMs / 1000);
        return;
      }
      deviceSeconds.inc({ engine, use: 'prefill' }, row.prefillDeviceMs / 1000);
      deviceSeconds.inc({ engine, use: 'decode' }, row.decodeDeviceMs / 1000);
      deviceSeconds.inc({ engine, use: 'recompute' }, row.recomputeDeviceMs / 1000);
      deviceSeconds.inc({ engine, use: 'speculation_waste' }, row.speculationWasteDeviceMs / 1000);
      generationTokens.inc(labels(engine), row.emittedTokenCount);
      draftTokens.inc(labels(engine), row.draftedTokenCount);
      acceptedTokens.inc(labels(engine), row.acceptedDraftCount);
      preemptions.inc(labels(engine), row.preemptionCount);
      iterationTokens.observe(labels(engine), row.tokenCount);
    },
    requestEnded(row) {
      const own = labels(row.workerId);
      successes.inc({ ...own, finished_reason: finishedReasons[row.finishReason] });
      promptTokens.inc(own, row.promptTokenCount);
      cachedTokens.inc(own, row.cachedTokenCount);
      cacheQueries.inc(own, row.promptTokenCount);
      cacheHits.inc(own, row.cachedTokenCount);
      promptLengths.observe(own, row.promptTokenCount);
      answerLengths.observe(own, row.completionTokenCount);
      longestAnswers.observe(own, row.completionTokenCount);
      e2e.observe(own, row.e2eMs / 1000);
      queue.observe(own, row.queueMs / 1000);
      withinObjectives.inc({
        service_tier: row.serviceTier,
        is_within: row.isWithinObjectives ? 'true' : 'false',
      });
      if (row.completionTokenCount === 0) return;
      const { prefillMs, decodeMs } = row;
      ttft.observe(own, row.ttftMs / 1000);
      prefill.observe(own, prefillMs / 1000);
      decode.observe(own, decodeMs / 1000);
      inference.observe(own, (prefillMs + decodeMs) / 1000);
      if (row.completionTokenCount > 1) tpot.observe(own, row.tpotMs / 1000);
    },
    tokenGap: (gapMs) => itl.observe({ model_name: modelName }, gapMs / 1000),
    refused: (code) => refusals.inc({ code }),
    refusalRowSkipped: () => skippedRefusals.inc(),
    text: () => registry.metrics(),
  };
}
