/** How long files may be asked to be kept; OpenAI's bounds. */
import { z } from 'zod';

export const MIN_EXPIRY_SECONDS = 3600;
export const MAX_EXPIRY_SECONDS = 30 * 24 * 3600;

export const expiresAfter = z.strictObject({
  anchor: z.literal('created_at'),
  seconds: z.int().min(MIN_EXPIRY_SECONDS).max(MAX_EXPIRY_SECONDS),
});
