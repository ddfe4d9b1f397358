/**
 * The door to model reading: a path given by a person -> LoadedModel, or a ModelError that names file and fault.
 * Called by the gateway (tokenizer, template, limits) and the worker (tensors). Opens Hugging Face folders, hub-cache
 * folders and GGUF files; refuses everything else.
 */
import { readdir, readFile, stat } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { loadGguf } from './gguf-model.ts';
import { loadHuggingFace } from './hugging-face.ts';
import { asModelError, isMissing } from './json-file.ts';
import type { LoadedModel } from './loaded-model.ts';
import { ModelError } from './model-error.ts';

export type { GenerationDefaults, LoadedModel, LoadedTokenizer } from './loaded-model.ts';

/** @throws ModelError */
export async function loadModel(path: string): Promise<LoadedModel> {
  const place = resolve(path);
  try {
    const entry = await stat(place);
    if (entry.isDirectory()) return await loadHuggingFace(await snapshotIn(place));
    if (entry.isFile()) return await loadGguf(place);
  } catch (error) {
    if (isMissing(error)) throw new ModelError(place, 'there is no such file or folder.');
    throw asModelError(place, error);
  }
  throw new ModelError(place, 'it is neither a folder nor a file.');
}

/** The folder itself, or the snapshot to use where it is a hub cache's `models--org--name`. */
async function snapshotIn(folder: string): Promise<string> {
  if (!basename(folder).startsWith('models--')) return folder;
  const revision = await readFile(join(folder, 'refs', 'main'), 'utf8').then(
    (text) => text.trim(),
    () => null,
  );
  if (revision !== null && /^\w[\w.-]*$/.test(revision)) return join(folder, 'snapshots', revision);
  const snapshots = await readdir(join(folder, 'snapshots')).catch((error: unknown) => {
    if (isMissing(error)) return [];
    throw asModelError(join(folder, 'snapshots'), error);
  });
  const [only] = snapshots;
  if (only === undefined || snapshots.length > 1) {
    throw new ModelError(
      folder,
      `it holds ${snapshots.length} snapshots and no refs/main; name one of them.`,
    );
  }
  return join(folder, 'snapshots', only);
}
