/**
 * What holds of experts whatever file speaks of them. Used by both model readers. Refuses numbers by which a token could
 * not be given its experts.
 */
import { ModelError } from './model-error.ts';
import type { ExpertShape } from './model-shape.ts';

/** As the native side has it. */
export const MOST_EXPERTS = 4096;

/** @throws ModelError where a token could not be given its experts */
export function checkedExperts(file: string, experts: ExpertShape): ExpertShape {
  const { expertCount, expertsPerToken, groupCount, groupsPerToken } = experts;
  if (expertCount % groupCount !== 0 || groupsPerToken > groupCount) {
    throw new ModelError(
      file,
      `${expertCount} experts cannot lie in ${groupCount} groups with ${groupsPerToken} a token.`,
    );
  }
  const choosableCount = (expertCount / groupCount) * groupsPerToken;
  if (expertsPerToken > choosableCount) {
    throw new ModelError(
      file,
      `a token wants ${expertsPerToken} experts and may choose among ${choosableCount}.`,
    );
  }
  return experts;
}
