/**
 * OpenTelemetry traces of the GenAI conventions: one server span for each request to a completion endpoint, sent by OTLP
 * over HTTP where a collector is configured. Built from what the request rows say; never a prompt or an answer. The queue is
 * bounded and sent beside: a dead collector loses spans and costs a request nothing. Libraries are loaded when it is on.
 */
import type { ServedRequestRow } from '@variator/clickhouse/request-row';

export interface RequestSpan {
  /** The model that was asked for, once the body has been read. */
  asked(model: string): void;
  rowEnded(row: ServedRequestRow): void;
  /** May be called more than once; the first counts. `errorCode`: '' where the answer was given. */
  end(status: number, errorCode: string, at: number): void;
}

export interface Traces {
  open(facts: {
    readonly operation: 'chat' | 'text_completion';
    readonly requestId: string;
    /** The caller's, as its header has it. */
    readonly traceparent: string | undefined;
    readonly at: number;
  }): RequestSpan;
  /** Sends what waits, for at most a few seconds. */
  close(): Promise<void>;
}

const MOST_QUEUED_SPANS = 2048;
const EXPORT_LIMIT_MS = 3000;
const finishWords = {
  stop: 'stop',
  length: 'length',
  cancelled: 'cancelled',
  expired: 'expired',
  error: 'error',
} as const;

export async function openTraces(options: {
  readonly endpoint: string;
  readonly modelName: string;
  readonly version: string;
}): Promise<Traces> {
  const { ROOT_CONTEXT, SpanKind, SpanStatusCode, trace } = await import('@opentelemetry/api');
  const { BasicTracerProvider, BatchSpanProcessor } = await import('@opentelemetry/sdk-trace-base');
  const { OTLPTraceExporter } = await import('@opentelemetry/exporter-trace-otlp-http');
  const { resourceFromAttributes } = await import('@opentelemetry/resources');
  const processor = new BatchSpanProcessor(
    new OTLPTraceExporter({ url: tracesUrl(options.endpoint), timeoutMillis: EXPORT_LIMIT_MS }),
    { maxQueueSize: MOST_QUEUED_SPANS, scheduledDelayMillis: 1000, exportTimeoutMillis: EXPORT_LIMIT_MS },
  );
  const provider = new BasicTracerProvider({
    resource: resourceFromAttributes({ 'service.name': 'variator', 'service.version': options.version }),
    spanProcessors: [processor],
  });
  const tracer = provider.getTracer('variator', options.version);

  return {
    open({ operation, requestId, traceparent, at }) {
      const caller = callerOf(traceparent);
      const context = caller === null ? ROOT_CONTEXT : trace.setSpanContext(ROOT_CONTEXT, caller);
      const span = tracer.startSpan(operation, { kind: SpanKind.SERVER, startTime: at }, context);
      const rows: ServedRequestRow[] = [];
      let isOver = false;
      span.setAttributes({
        'gen_ai.operation.name': operation,
        'gen_ai.provider.name': 'variator',
        'variator.request.id': requestId,
      });
      return {
        asked(model) {
          span.updateName(`${operation} ${model}`);
          span.setAttribute('gen_ai.request.model', model);
        },
        rowEnded: (row) => rows.push(row),
        end(status, errorCode, endedAt) {
          if (isOver) return;
          isOver = true;
          const fault = errorCode || (rows.find((row) => row.errorCode !== '')?.errorCode ?? '');
          span.setAttribute('http.response.status_code', status);
          if (rows.length > 0) span.setAttributes(attributesOf(rows, options.modelName));
          if (fault !== '') {
            span.setAttribute('error.type', fault);
            span.setStatus({ code: SpanStatusCode.ERROR });
          }
          span.end(endedAt);
        },
      };
    },
    async close() {
      const limit = new Promise<void>((done) => setTimeout(done, EXPORT_LIMIT_MS).unref());
      // What cannot be sent at the end is lost, as it is before.
      await Promise.race([provider.shutdown().catch(() => undefined), limit]);
    },
  };
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

function attributesOf(rows: readonly ServedRequestRow[], modelName: string) {
  const [first] = rows;
  const begun = rows.filter(({ completionTokenCount }) => completionTokenCount > 0);
  return {
    'gen_ai.response.model': modelName,
    'gen_ai.response.id': first?.requestId ?? '',
    'gen_ai.response.finish_reasons': rows.map((row) => finishWords[row.finishReason]),
    'gen_ai.usage.input_tokens': sum(rows.map((row) => row.promptTokenCount)),
    'gen_ai.usage.output_tokens': sum(rows.map((row) => row.completionTokenCount)),
    'gen_ai.usage.cache_read.input_tokens': sum(rows.map((row) => row.cachedTokenCount)),
    'gen_ai.request.stream': first?.isStreamed ?? false,
    ...(begun.length === 0
      ? {}
      : { 'gen_ai.response.time_to_first_chunk': Math.min(...begun.map((row) => row.ttftMs)) / 1000 }),
    'variator.service_tier': first?.serviceTier ?? '',
    'variator.worker.id': first?.workerId ?? '',
    'variator.path.id': first?.pathId ?? '',
    'variator.queue_ms': Math.max(...rows.map((row) => row.queueMs)),
  };
}

/** A collector's base URL or that of its traces. */
function tracesUrl(endpoint: string): string {
  const url = new URL(endpoint);
  if (url.pathname === '/' || url.pathname === '') url.pathname = '/v1/traces';
  return url.href;
}

/** W3C's header; null where it is none. */
function callerOf(traceparent: string | undefined) {
  const [, traceId = '', spanId = '', flags = ''] =
    /^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/.exec(traceparent ?? '') ?? [];
  if (traceId === '' || /^0+$/.test(traceId) || /^0+$/.test(spanId)) return null;
  return { traceId, spanId, traceFlags: Number.parseInt(flags, 16) & 1, isRemote: true };
}
