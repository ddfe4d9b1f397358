/**
 * A GGUF file of a Llama, Mistral (whose files say `llama`), Qwen2, Qwen3 or Qwen3-MoE -> LoadedModel. Called by
 * load-model.ts. The converter that writes `llama` files permutes the rows of q and k into pairs (2i, 2i+1), which
 * `isRopeInterleaved` tells the native side; those of the Qwens it leaves as they are. It lays the experts of a layer
 * one behind the other in one tensor. Refuses other architectures, other mixtures of experts and split files by name.
 */
import { basename } from 'node:path';
import { readGguf } from './gguf-file.ts';
import { GgufMetadata } from './gguf-metadata.ts';
import { type GgufArchitecture, readGgufShape } from './gguf-shape.ts';
import { readGgufTokenizer } from './gguf-tokenizer.ts';
import type { LoadedModel } from './loaded-model.ts';
import { ModelError } from './model-error.ts';
import { modelHash } from './model-hash.ts';
import type { LayerTensors, ModelShape, ModelTensors } from './model-shape.ts';
import { TensorTable } from './tensor-table.ts';

const ARCHITECTURES: readonly GgufArchitecture[] = ['llama', 'qwen2', 'qwen3', 'qwen3moe'];

export async function loadGguf(file: string): Promise<LoadedModel> {
  const { metadata: values, tensors: stored } = readGguf(file);
  const metadata = new GgufMetadata(file, values);
  const architecture = readArchitecture(metadata);
  const tokenizer = readGgufTokenizer(metadata);
  const table = new TensorTable(file, stored);
  const vocabularySize = metadata.texts('tokenizer.ggml.tokens')?.length ?? 0;
  const shape = await readGgufShape(metadata, architecture, table, vocabularySize);
  const tensors = takeTensors(table, shape, architecture);
  const name = architecture === 'qwen3moe' ? 'qwen3_moe' : architecture;
  return {
    modelId: basename(file).replace(/\.gguf$/i, ''),
    modelHash: await modelHash(name, shape, tensors),
    architecture: name,
    shape,
    tensors,
    tokenizer,
    generation: { temperature: null, topP: null, topK: null },
  };
}

function readArchitecture(metadata: GgufMetadata): GgufArchitecture {
  const named = metadata.text('general.architecture');
  const architecture = ARCHITECTURES.find((known) => known === named);
  if (architecture === undefined) {
    throw new ModelError(
      metadata.file,
      `its architecture is "${named}"; of GGUF files, ${ARCHITECTURES.join(', ')} are read.`,
    );
  }
  if ((metadata.count('split.count', 65_535) ?? 1) > 1) {
    throw new ModelError(metadata.file, 'it is one part of a split model; merge the parts first.');
  }
  return architecture;
}

function takeTensors(table: TensorTable, shape: ModelShape, architecture: GgufArchitecture): ModelTensors {
  const { hiddenSize, headCount, kvHeadCount, headSize, vocabularySize } = shape;
  const [queryRows, kvRows] = [headCount * headSize, kvHeadCount * headSize];
  const layers = Array.from({ length: shape.layerCount }, (_, index): LayerTensors => {
    const of = (name: string): string => `blk.${index}.${name}`;
    // Qwen2 cannot do without its biases; a Llama may have some.
    const bias = (name: string, rows: number) =>
      architecture === 'qwen2'
        ? table.vector(of(`attn_${name}.bias`), rows)
        : table.vectorIfThere(of(`attn_${name}.bias`), rows);
    const headNorm = (name: string) =>
      architecture.startsWith('qwen3') ? table.vector(of(`attn_${name}_norm.weight`), headSize) : null;
    return {
      inputNorm: table.vector(of('attn_norm.weight'), hiddenSize),
      q: table.matrix(of('attn_q.weight'), queryRows, hiddenSize),
      k: table.matrix(of('attn_k.weight'), kvRows, hiddenSize),
      v: table.matrix(of('attn_v.weight'), kvRows, hiddenSize),
      o: table.matrix(of('attn_output.weight'), hiddenSize, queryRows),
      latent: null,
      qBias: bias('q', queryRows),
      kBias: bias('k', kvRows),
      vBias: bias('v', kvRows),
      qNorm: headNorm('q'),
      kNorm: headNorm('k'),
      postAttentionNorm: table.vector(of('ffn_norm.weight'), hiddenSize),
      ...takeFeedForward(table, shape, of),
    };
  });
  const embedding = table.matrix('token_embd.weight', vocabularySize, hiddenSize);
  const finalNorm = table.vector('output_norm.weight', hiddenSize);
  const head = table.has('output.weight')
    ? table.matrix('output.weight', vocabularySize, hiddenSize)
    : embedding;
  table.refuseLeftovers();
  return { embedding, layers, finalNorm, head };
}

function takeFeedForward(table: TensorTable, shape: ModelShape, of: (name: string) => string) {
  const { hiddenSize, intermediateSize, experts } = shape;
  if (experts === null) {
    return {
      gate: table.matrix(of('ffn_gate.weight'), intermediateSize, hiddenSize),
      up: table.matrix(of('ffn_up.weight'), intermediateSize, hiddenSize),
      down: table.matrix(of('ffn_down.weight'), hiddenSize, intermediateSize),
      ...{ router: null, routerBias: null, experts: [] },
    };
  }
  const { expertCount, intermediateSize: size } = experts;
  const gates = table.matrices(of('ffn_gate_exps.weight'), expertCount, size, hiddenSize);
  const ups = table.matrices(of('ffn_up_exps.weight'), expertCount, size, hiddenSize);
  const downs = table.matrices(of('ffn_down_exps.weight'), expertCount, hiddenSize, size);
  return {
    ...{ gate: null, up: null, down: null, routerBias: null },
    router: table.matrix(of('ffn_gate_inp.weight'), expertCount, hiddenSize),
    experts: gates.flatMap((gate, expert) => {
      const [up, down] = [ups[expert], downs[expert]];
      return up === undefined || down === undefined ? [] : [{ gate, up, down }];
    }),
  };
}
