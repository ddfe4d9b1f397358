/**
 * What is the world's and passes: a disk that is full or fails, the total of all files used up. Whoever meets it waits and
 * tries again; anything else is a fault of ours.
 */
import { BatchError } from './batch.ts';

export function isWorldFault(error: unknown): error is Error {
  if (error instanceof BatchError) return error.fault === 'full';
  return (
    error instanceof Error && (isDiskFull(error) || hasCode(error, /^(EIO|EROFS|EMFILE|ENFILE|SQLITE_)/))
  );
}

export const isDiskFull = (error: unknown): boolean => hasCode(error, /^(ENOSPC|EDQUOT|EFBIG|SQLITE_FULL)$/);

const hasCode = (error: unknown, pattern: RegExp): boolean =>
  error instanceof Error && 'code' in error && pattern.test(String(error.code));
