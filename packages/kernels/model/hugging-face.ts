/**
 * A Hugging Face folder (config.json, safetensors, tokenizer files) -> LoadedModel. Called by load-model.ts.
 * Never runs the repository's code and touches no weight beyond the hash's samples.
 */
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { parseHuggingFaceConfig, tokenIdsSchema } from './hugging-face-config.ts';
import { takeTensors } from './hugging-face-tensors.ts';
import { parseFields, readJson, readJsonIfThere } from './json-file.ts';
import type { GenerationDefaults, LoadedModel } from './loaded-model.ts';
import { modelHash } from './model-hash.ts';
import { readSafetensorsFolder } from './safetensors.ts';
import { TensorTable } from './tensor-table.ts';
import { readTokenizerFiles } from './tokenizer-files.ts';

const generationSchema = z.object({
  do_sample: z.boolean().nullish(),
  temperature: z.number().min(0).nullish(),
  top_p: z.number().gt(0).max(1).nullish(),
  top_k: z.int().min(0).nullish(),
  eos_token_id: tokenIdsSchema,
});

export async function loadHuggingFace(folder: string): Promise<LoadedModel> {
  const configFile = join(folder, 'config.json');
  const config = parseHuggingFaceConfig(configFile, await readJson(configFile));
  const tensors = takeTensors(new TensorTable(folder, await readSafetensorsFolder(folder)), config);

  const generationFile = join(folder, 'generation_config.json');
  const generation = parseFields(
    generationFile,
    generationSchema,
    (await readJsonIfThere(generationFile)) ?? {},
  );
  // An id beyond the vocabulary cannot be computed, so it begins and ends nothing.
  const { vocabularySize } = config.shape;
  const ids = {
    bosTokenId: (config.bosTokenId ?? vocabularySize) < vocabularySize ? config.bosTokenId : null,
    eosTokenIds: [...config.eosTokenIds, ...generation.eos_token_id].filter((id) => id < vocabularySize),
  };
  const tokenizer = await readTokenizerFiles(folder, ids, vocabularySize);
  return {
    modelId: nameOf(folder),
    modelHash: await modelHash(config.architecture, config.shape, tensors),
    architecture: config.architecture,
    shape: config.shape,
    tensors,
    tokenizer,
    generation: readDefaults(generation),
  };
}

function readDefaults(generation: z.infer<typeof generationSchema>): GenerationDefaults {
  if (generation.do_sample === false) return { temperature: null, topP: null, topK: null };
  return {
    temperature: generation.temperature ?? null,
    topP: generation.top_p ?? null,
    topK: generation.top_k ?? null,
  };
}

/** The folder's name; in a hub cache (`models--org--name/snapshots/REVISION`) `org/name`. */
function nameOf(folder: string): string {
  const cached = /^models--(.+)$/.exec(basename(dirname(dirname(folder))))?.[1];
  if (cached !== undefined && basename(dirname(folder)) === 'snapshots') return cached.replace('--', '/');
  return basename(folder);
}
