/** The names under which the model is served, and the refusal of every other. Called by every route that takes a model. */
import { RequestError } from '../generation/request-error.ts';

/** @throws RequestError 404 */
export function assertServed(asked: string, servedModelNames: readonly string[]): void {
  if (!servedModelNames.includes(asked)) throw unknownModel(asked, servedModelNames);
}

export const unknownModel = (asked: string, servedModelNames: readonly string[]): RequestError =>
  new RequestError({
    status: 404,
    type: 'invalid_request_error',
    code: 'model_not_found',
    param: 'model',
    message: `The model "${asked.slice(0, 128)}" does not exist here; this server serves ${servedModelNames
      .map((name) => `"${name}"`)
      .join(', ')}.`,
  });
