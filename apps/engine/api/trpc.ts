/**
 * tRPC itself: the context every procedure receives, the two kinds of procedure, and how errors become sentences.
 * Imported by the noun files and by router.ts. Security checks of the connection are admin-server.ts's.
 */
import { initTRPC, TRPCError } from '@trpc/server';
import type { TelemetryClient } from '@variator/clickhouse/client';
import { PathError } from '@variator/kernels/execution-path';
import { ZodError } from 'zod';
import type { Control } from '../control/control.ts';
import { ControlError, type ControlFault } from '../control/control-error.ts';
import { type Fleet, FleetError } from '../fleet/fleet.ts';
import { TelemetryFault } from './telemetry-answer.ts';

/** What the procedures act on; made once by createAdminServer. */
export interface EngineParts {
  readonly fleet: Fleet;
  readonly control: Control;
  /** null where no telemetry store is configured. */
  readonly telemetry: TelemetryClient | null;
  readonly recorder: { droppedRowCount(): number; fault(): string };
  readonly modelId: string;
  readonly now: () => number;
}

export interface ApiContext extends EngineParts {
  /** What the client calls itself (`x-variator-client`); '' for queries without it. Kept in the audit. */
  readonly who: string;
}

const codeOf: Record<ControlFault, TRPCError['code']> = {
  notFound: 'NOT_FOUND',
  conflict: 'CONFLICT',
  refused: 'PRECONDITION_FAILED',
  invalid: 'BAD_REQUEST',
};

const t = initTRPC.context<ApiContext>().create({
  isDev: false,
  // Stacks and the messages of our own faults stay in the log.
  errorFormatter: ({ shape, error }) => ({
    ...shape,
    message: sentenceOf(error),
    data: { code: shape.data.code, httpStatus: shape.data.httpStatus, path: shape.data.path },
  }),
});

const knownErrors = t.middleware(async ({ next }) => {
  const result = await next();
  if (result.ok) return result;
  const { cause } = result.error;
  if (cause instanceof ControlError) throw asTrpc(codeOf[cause.fault], cause);
  if (cause instanceof PathError) throw asTrpc('BAD_REQUEST', cause);
  if (cause instanceof FleetError || cause instanceof TelemetryFault)
    throw asTrpc('SERVICE_UNAVAILABLE', cause);
  return result;
});

export const router = t.router;
export const query = t.procedure.use(knownErrors);
export const mutation = t.procedure.use(knownErrors);

function asTrpc(code: TRPCError['code'], cause: Error): TRPCError {
  return new TRPCError({ code, message: cause.message, cause });
}

function sentenceOf(error: TRPCError): string {
  if (error.cause instanceof ZodError) {
    const faults = error.cause.issues
      .slice(0, 8)
      .map(({ path, message }) => (path.length > 0 ? `${path.join('.')}: ${message}` : message));
    return `${faults.join('; ')}.`.replace(/\.\.$/, '.');
  }
  if (error.code === 'INTERNAL_SERVER_ERROR') return 'The gateway failed to answer this; its log says why.';
  return error.message;
}
