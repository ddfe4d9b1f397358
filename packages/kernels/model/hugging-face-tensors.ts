/**
 * The tensors of a Hugging Face checkpoint, by the names that transformers saves them under -> ModelTensors. Called by
 * hugging-face.ts; pure. Refuses a tensor that is missing, has another shape, or has no place in the architecture.
 */
import type { HuggingFaceConfig } from './hugging-face-config.ts';
import type { LatentShape, LayerTensors, MlpTensors, ModelTensors } from './model-shape.ts';
import type { TensorTable } from './tensor-table.ts';

/** @throws ModelError */
export function takeTensors(table: TensorTable, config: HuggingFaceConfig): ModelTensors {
  const { hiddenSize, vocabularySize, layerCount, latent } = config.shape;
  const layers = Array.from({ length: layerCount }, (_, index): LayerTensors => {
    const of = (name: string): string => `model.layers.${index}.${name}`;
    return {
      inputNorm: table.vector(of('input_layernorm.weight'), hiddenSize),
      ...(latent === null
        ? takeAttention(table, config, (name) => of(`self_attn.${name}`))
        : takeLatentAttention(table, config, latent, (name) => of(`self_attn.${name}`))),
      postAttentionNorm: table.vector(of('post_attention_layernorm.weight'), hiddenSize),
      ...takeFeedForward(table, config, (name) => of(`mlp.${name}`), config.isSparse[index] === true),
    };
  });
  const embedding = table.matrix('model.embed_tokens.weight', vocabularySize, hiddenSize);
  const finalNorm = table.vector('model.norm.weight', hiddenSize);
  const isHeadTied = config.isHeadTied || !table.has('lm_head.weight');
  // A tied model may still carry its head; transformers then uses the embedding, and so do we.
  table.skip('lm_head.weight');
  const head = isHeadTied ? embedding : table.matrix('lm_head.weight', vocabularySize, hiddenSize);
  for (let index = 0; index < config.nextTokenLayerCount; index += 1) {
    table.skipAll(`model.layers.${layerCount + index}.`);
  }
  table.refuseLeftovers();
  return { embedding, layers, finalNorm, head };
}

type Named = (name: string) => string;

function takeAttention(table: TensorTable, config: HuggingFaceConfig, of: Named) {
  const { hiddenSize, headCount, kvHeadCount, headSize } = config.shape;
  const [queryRows, kvRows] = [headCount * headSize, kvHeadCount * headSize];
  const bias = (name: string, rows: number) =>
    config.isAttentionBiased ? table.vector(of(`${name}.bias`), rows) : null;
  const hasHeadNorms = config.architecture === 'qwen3' || config.architecture === 'qwen3_moe';
  const headNorm = (name: string) => (hasHeadNorms ? table.vector(of(`${name}.weight`), headSize) : null);
  table.skip(of('rotary_emb.inv_freq'));
  return {
    q: table.matrix(of('q_proj.weight'), queryRows, hiddenSize),
    k: table.matrix(of('k_proj.weight'), kvRows, hiddenSize),
    v: table.matrix(of('v_proj.weight'), kvRows, hiddenSize),
    o: table.matrix(of('o_proj.weight'), hiddenSize, queryRows),
    latent: null,
    qBias: bias('q_proj', queryRows),
    kBias: bias('k_proj', kvRows),
    vBias: bias('v_proj', kvRows),
    qNorm: headNorm('q_norm'),
    kNorm: headNorm('k_norm'),
  };
}

function takeLatentAttention(table: TensorTable, config: HuggingFaceConfig, latent: LatentShape, of: Named) {
  const { hiddenSize, headCount, headSize } = config.shape;
  const { queryRank, keyValueRank, ropeSize, valueHeadSize } = latent;
  const [queryRows, upRows] = [headCount * headSize, headCount * (headSize - ropeSize + valueHeadSize)];
  table.skip(of('rotary_emb.inv_freq'));
  const hasQueryLatent = queryRank > 0;
  return {
    q: hasQueryLatent
      ? table.matrix(of('q_b_proj.weight'), queryRows, queryRank)
      : table.matrix(of('q_proj.weight'), queryRows, hiddenSize),
    o: table.matrix(of('o_proj.weight'), hiddenSize, headCount * valueHeadSize),
    latent: {
      queryDown: hasQueryLatent ? table.matrix(of('q_a_proj.weight'), queryRank, hiddenSize) : null,
      queryNorm: hasQueryLatent ? table.vector(of('q_a_layernorm.weight'), queryRank) : null,
      keyValueDown: table.matrix(of('kv_a_proj_with_mqa.weight'), keyValueRank + ropeSize, hiddenSize),
      keyValueNorm: table.vector(of('kv_a_layernorm.weight'), keyValueRank),
      keyValueUp: table.matrix(of('kv_b_proj.weight'), upRows, keyValueRank),
    },
    ...{ k: null, v: null, qBias: null, kBias: null, vBias: null, qNorm: null, kNorm: null },
  };
}

function takeFeedForward(table: TensorTable, config: HuggingFaceConfig, of: Named, isSparse: boolean) {
  const { hiddenSize, intermediateSize, experts } = config.shape;
  const mlp = (name: Named, size: number): MlpTensors => ({
    gate: table.matrix(name('gate_proj.weight'), size, hiddenSize),
    up: table.matrix(name('up_proj.weight'), size, hiddenSize),
    down: table.matrix(name('down_proj.weight'), hiddenSize, size),
  });
  if (!isSparse || experts === null) {
    return { ...mlp(of, intermediateSize), router: null, routerBias: null, experts: [] };
  }
  const { expertCount, sharedIntermediateSize, scoring } = experts;
  const own =
    sharedIntermediateSize === 0
      ? { gate: null, up: null, down: null }
      : mlp((name) => of(`shared_experts.${name}`), sharedIntermediateSize);
  return {
    ...own,
    router: table.matrix(of('gate.weight'), expertCount, hiddenSize),
    routerBias: scoring === 'sigmoid' ? table.vector(of('gate.e_score_correction_bias'), expertCount) : null,
    experts: Array.from({ length: expertCount }, (_, expert) =>
      mlp((name) => of(`experts.${expert}.${name}`), experts.intermediateSize),
    ),
  };
}
