/** Types of build.mjs, which is plain JavaScript because it runs before anything is installed. */
export const addonFile: string;
export const noCompilerMessage: string;
export function buildNative(options?: {
  readonly log?: (line: string) => void;
  readonly compiler?: string;
  readonly areWarningsShown?: boolean;
  readonly flavour?: 'fast' | 'sanitized';
}): Promise<string>;
