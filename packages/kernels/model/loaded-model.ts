/** What a model folder or GGUF file says, read and checked, with no weight touched. Made by load-model.ts. */
import type { ModelShape, ModelTensors } from './model-shape.ts';

export interface LoadedModel {
  /** What clients call it: the folder's or file's name, e.g. `SmolLM2-135M-Instruct.Q4_1`. */
  readonly modelId: string;
  /** First 16 hex digits of a SHA-256 over configuration, tensor table and sampled weight bytes. */
  readonly modelHash: string;
  readonly architecture: 'llama' | 'mistral' | 'qwen2' | 'qwen3' | 'qwen3_moe' | 'deepseek_v3';
  readonly shape: ModelShape;
  readonly tensors: ModelTensors;
  readonly tokenizer: LoadedTokenizer;
  readonly generation: GenerationDefaults;
}

/** In the shapes that `@huggingface/tokenizers` takes, whatever file they came from. */
export interface LoadedTokenizer {
  /** What to name where its pieces turn out to be of a kind that is not served. */
  readonly file: string;
  readonly tokenizerJson: Record<string, unknown>;
  readonly tokenizerConfig: Record<string, unknown>;
  /** Jinja source, or null where the model has none. */
  readonly chatTemplate: string | null;
  readonly bosTokenId: number | null;
  readonly eosTokenIds: readonly number[];
}

/** From generation_config.json; null where it says nothing. */
export interface GenerationDefaults {
  readonly temperature: number | null;
  readonly topP: number | null;
  readonly topK: number | null;
}
