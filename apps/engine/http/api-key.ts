/** The one API key of the inference endpoint, compared in constant time. Called by server.ts before a body is read. */
import { createHash, timingSafeEqual } from 'node:crypto';
import { RequestError } from '../generation/request-error.ts';

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();

/** @throws RequestError 401 where a key is set and the header does not carry it */
export function checkApiKey(apiKey: string | null, authorization: string | undefined): void {
  if (apiKey === null) return;
  const sent = /^Bearer +(\S+) *$/i.exec(authorization ?? '')?.[1] ?? '';
  if (timingSafeEqual(digest(sent), digest(apiKey))) return;
  throw new RequestError({
    status: 401,
    type: 'authentication_error',
    code: 'invalid_api_key',
    message:
      sent === ''
        ? 'An API key is needed: send the header "Authorization: Bearer KEY".'
        : 'The API key is not correct.',
  });
}
