/**
 * Files and batches in OpenAI's shapes, and this room's refusals as RequestErrors. Used by routes/files.ts and
 * routes/batches.ts; times are whole seconds there and milliseconds here.
 */
import { z } from 'zod';
import { type Batch, BatchError, type BatchFault, type StoredFile } from '../batches/batch.ts';
import { isDiskFull } from '../batches/world-fault.ts';
import { RequestError } from '../generation/request-error.ts';
import { unavailable } from './error-body.ts';

const seconds = (ms: number | null): number | null => (ms === null ? null : Math.floor(ms / 1000));

export const fileSchema = z.object({
  id: z.string(),
  object: z.literal('file'),
  bytes: z.int(),
  created_at: z.int(),
  expires_at: z.int(),
  filename: z.string(),
  purpose: z.enum(['batch', 'batch_output']),
  status: z.literal('processed'),
  status_details: z.null(),
});

export function fileBody(file: StoredFile): z.infer<typeof fileSchema> {
  return {
    id: file.fileId,
    object: 'file',
    bytes: file.bytes,
    created_at: Math.floor(file.createdAt / 1000),
    expires_at: Math.floor(file.expiresAt / 1000),
    filename: file.filename,
    purpose: file.purpose,
    status: 'processed',
    status_details: null,
  };
}

const moment = z.int().nullable();

export const batchSchema = z.object({
  id: z.string(),
  object: z.literal('batch'),
  endpoint: z.enum(['/v1/chat/completions', '/v1/completions']),
  model: z.string().nullable(),
  errors: z
    .object({
      object: z.literal('list'),
      data: z.array(
        z.object({
          code: z.string(),
          message: z.string(),
          param: z.string().nullable(),
          line: z.int().nullable(),
        }),
      ),
    })
    .nullable(),
  input_file_id: z.string(),
  completion_window: z.literal('24h'),
  status: z.enum([
    'validating',
    'failed',
    'in_progress',
    'finalizing',
    'completed',
    'expired',
    'cancelling',
    'cancelled',
  ]),
  output_file_id: z.string().nullable(),
  error_file_id: z.string().nullable(),
  created_at: z.int(),
  in_progress_at: moment,
  expires_at: moment,
  finalizing_at: moment,
  completed_at: moment,
  failed_at: moment,
  expired_at: moment,
  cancelling_at: moment,
  cancelled_at: moment,
  request_counts: z.object({ total: z.int(), completed: z.int(), failed: z.int() }),
  usage: z.object({
    input_tokens: z.int(),
    input_tokens_details: z.object({ cached_tokens: z.int() }),
    output_tokens: z.int(),
    output_tokens_details: z.object({ reasoning_tokens: z.int() }),
    total_tokens: z.int(),
  }),
  metadata: z.record(z.string(), z.string()).nullable(),
});

export function batchBody(batch: Batch): z.infer<typeof batchSchema> {
  const { usage } = batch;
  return {
    id: batch.batchId,
    object: 'batch',
    endpoint: batch.endpoint,
    model: batch.model === '' ? null : batch.model,
    errors: batch.faults.length === 0 ? null : { object: 'list', data: [...batch.faults] },
    input_file_id: batch.inputFileId,
    completion_window: '24h',
    status: batch.status,
    output_file_id: batch.outputFileId,
    error_file_id: batch.errorFileId,
    created_at: Math.floor(batch.createdAt / 1000),
    in_progress_at: seconds(batch.inProgressAt),
    expires_at: seconds(batch.expiresAt),
    finalizing_at: seconds(batch.finalizingAt),
    completed_at: seconds(batch.completedAt),
    failed_at: seconds(batch.failedAt),
    expired_at: seconds(batch.expiredAt),
    cancelling_at: seconds(batch.cancellingAt),
    cancelled_at: seconds(batch.cancelledAt),
    request_counts: { ...batch.counts },
    usage: {
      input_tokens: usage.promptTokenCount,
      input_tokens_details: { cached_tokens: usage.cachedTokenCount },
      output_tokens: usage.completionTokenCount,
      output_tokens_details: { reasoning_tokens: 0 },
      total_tokens: usage.promptTokenCount + usage.completionTokenCount,
    },
    metadata: batch.metadata === null ? null : { ...batch.metadata },
  };
}

/** A page as OpenAI's clients walk it: on from `last_id` while `has_more`. */
export const listSchema = <Item extends z.ZodType>(item: Item) =>
  z.object({
    object: z.literal('list'),
    data: z.array(item),
    first_id: z.string().nullable(),
    last_id: z.string().nullable(),
    has_more: z.boolean(),
  });

export function listBody<Item extends { readonly id: string }>(data: readonly Item[], hasMore: boolean) {
  return {
    object: 'list' as const,
    data: [...data],
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: hasMore,
  };
}

const statusOf: Readonly<Record<Exclude<BatchFault, 'unavailable'>, number>> = {
  notFound: 404,
  invalid: 400,
  conflict: 409,
  full: 400,
};

/** @throws RequestError in place of what the room refuses and of a full disk; everything else as it was */
export async function refusingBatches<Answer>(act: () => Promise<Answer>): Promise<Answer> {
  try {
    return await act();
  } catch (error) {
    if (isDiskFull(error)) {
      throw new RequestError({
        status: 507,
        type: 'server_error',
        code: 'disk_full',
        message: "The server's disk is full; nothing was kept. Try again when there is room.",
      });
    }
    if (!(error instanceof BatchError)) throw error;
    if (error.fault === 'unavailable') throw unavailable(error.message, error.code);
    const { code, message, param } = error;
    throw new RequestError({
      status: statusOf[error.fault],
      type: 'invalid_request_error',
      code,
      message,
      param,
    });
  }
}
