/**
 * What the control plane refuses, as one typed error with a sentence that says what to change. Thrown by open-control.ts,
 * policy.ts and control-store.ts; turned into tRPC errors in api/trpc.ts. Never used for a broken invariant of ours.
 */

/** notFound: no such id. conflict: the state has moved on. refused: a rule forbids it now. invalid: bad value. */
export type ControlFault = 'notFound' | 'conflict' | 'refused' | 'invalid';

export class ControlError extends Error {
  override readonly name = 'ControlError';
  readonly fault: ControlFault;

  constructor(fault: ControlFault, message: string, options?: ErrorOptions) {
    super(message, options);
    this.fault = fault;
  }
}
