/**
 * A Hugging Face folder (config.json, safetensors, tokenizer files) -> LoadedModel. Called by load-model.ts.
 * Never runs the repository's code and touches no weight beyond the hash's samples.
 */
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { type HuggingFaceConfig, parseHuggingFaceConfig, tokenIdsSchema } from './hugging-face-config.ts';
import { parseFields, readJson, readJsonIfThere } from './json-file.ts';
import type { GenerationDefaults, LoadedModel } from './loaded-model.ts';
import { modelHash } from './model-hash.ts';
import type { LayerTensors, ModelTensors } from './model-shape.ts';
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

function takeTensors(table: TensorTable, config: HuggingFaceConfig): ModelTensors {
  const { hiddenSize, intermediateSize, headCount, kvHeadCount, headSize, vocabularySize, layerCount } =
    config.shape;
  const [queryRows, kvRows] = [headCount * headSize, kvHeadCount * headSize];
  const layers = Array.from({ length: layerCount }, (_, index): LayerTensors => {
    const of = (name: string): string => `model.layers.${index}.${name}`;
    const bias = (name: string, rows: number) =>
      config.isAttentionBiased ? table.vector(of(`self_attn.${name}.bias`), rows) : null;
    const headNorm = (name: string) =>
      config.architecture === 'qwen3' ? table.vector(of(`self_attn.${name}.weight`), headSize) : null;
    table.skip(of('self_attn.rotary_emb.inv_freq'));
    return {
      inputNorm: table.vector(of('input_layernorm.weight'), hiddenSize),
      q: table.matrix(of('self_attn.q_proj.weight'), queryRows, hiddenSize),
      k: table.matrix(of('self_attn.k_proj.weight'), kvRows, hiddenSize),
      v: table.matrix(of('self_attn.v_proj.weight'), kvRows, hiddenSize),
      o: table.matrix(of('self_attn.o_proj.weight'), hiddenSize, queryRows),
      qBias: bias('q_proj', queryRows),
      kBias: bias('k_proj', kvRows),
      vBias: bias('v_proj', kvRows),
      qNorm: headNorm('q_norm'),
      kNorm: headNorm('k_norm'),
      postAttentionNorm: table.vector(of('post_attention_layernorm.weight'), hiddenSize),
      gate: table.matrix(of('mlp.gate_proj.weight'), intermediateSize, hiddenSize),
      up: table.matrix(of('mlp.up_proj.weight'), intermediateSize, hiddenSize),
      down: table.matrix(of('mlp.down_proj.weight'), hiddenSize, intermediateSize),
    };
  });
  const embedding = table.matrix('model.embed_tokens.weight', vocabularySize, hiddenSize);
  const finalNorm = table.vector('model.norm.weight', hiddenSize);
  const isHeadTied = config.isHeadTied || !table.has('lm_head.weight');
  // A tied model may still carry its head; transformers then uses the embedding, and so do we.
  table.skip('lm_head.weight');
  const head = isHeadTied ? embedding : table.matrix('lm_head.weight', vocabularySize, hiddenSize);
  table.refuseLeftovers();
  return { embedding, layers, finalNorm, head };
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
