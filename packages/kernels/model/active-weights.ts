/**
 * The matrices that one token multiplies with: every projection and the LM head, not the embedding; of a layer's experts as
 * many as a token is given. Used where an envelope states parameters and bytes. Pure.
 */
import type { ModelShape, ModelTensors, TensorSource } from './model-shape.ts';

export function activeMatrices(shape: ModelShape, tensors: ModelTensors): TensorSource[] {
  const layers = tensors.layers.flatMap(({ q, k, v, o, latent, gate, up, down, router, experts }) => [
    ...[q, k, v, o, gate, up, down, router],
    ...(latent === null ? [] : [latent.queryDown, latent.keyValueDown, latent.keyValueUp]),
    // All experts of a layer are of one shape.
    ...experts.slice(0, shape.experts?.expertsPerToken ?? 0).flatMap((one) => [one.gate, one.up, one.down]),
  ]);
  return [...layers, tensors.head].filter((tensor) => tensor !== null);
}
