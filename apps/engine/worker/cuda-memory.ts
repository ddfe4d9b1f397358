/**
 * What a GPU's memory is spent on besides the model in bf16: codes of its weights in fewer bits, made when a path first wants
 * them, and what remains for the KV cache. Pure; cuda-device.ts asks it before it makes the cache, since that takes the rest.
 */
import { cudaLinearOf, type LinearVariantId, variantOf, weightBytes } from '@variator/kernels/catalogue';
import { type CudaWeightFormat, cudaLinears } from '@variator/kernels/cuda-variants';
import type { ModelTensors, TensorSource } from '@variator/kernels/model/model-shape';

/** Of what is free once the model is there; the rest is for graphs and the driver. */
const USABLE_MEMORY = 0.9;
/** Codes may take no more of it: a format that would is not offered. */
const MOST_CODES = 0.5;

export interface CudaMemoryPlan {
  readonly linearVariants: readonly LinearVariantId[];
  /** Bytes of weights one step reads, by linear variant. */
  readonly weightBytes: Readonly<Partial<Record<LinearVariantId, number>>>;
  /** Kept free for codes of the variants offered. */
  readonly codeBytes: number;
  readonly kvMemoryBytes: number;
}

/**
 * @param known variants that the device can run, in their order
 * @param weights what a token multiplies with (`activeMatrices`)
 * @param mostTokens of a step, whose activations in 8 bits take memory, too
 */
export function cudaMemoryPlan(
  known: readonly LinearVariantId[],
  weights: readonly TensorSource[],
  tensors: ModelTensors,
  mostTokens: number,
  freeBytes: number,
): CudaMemoryPlan {
  const usable = USABLE_MEMORY * freeBytes;
  const bytesOf = (id: LinearVariantId): number =>
    weights.reduce((sum, one) => sum + weightBytes(id, one, one === tensors.head ? 'head' : 'layer'), 0);
  const widest = Math.max(...weights.map(({ columns }) => columns));
  const formatOf = (id: LinearVariantId): CudaWeightFormat => cudaLinears[cudaLinearOf(id)].weights;
  const extraBytes = new Map<CudaWeightFormat, number>([['bf16', 0]]);
  let codeBytes = 0;
  const linearVariants = known.filter((id) => {
    const { shape } = variantOf(id);
    if (weights.some(({ columns }) => columns % (shape?.columnsPadTo ?? 1) !== 0)) return false;
    const format = formatOf(id);
    if (extraBytes.has(format)) return true;
    // Only products in 8 bits by wgmma round them.
    const bytes = bytesOf(id) + (format === 'fp8' ? mostTokens * (widest + 4) : 0);
    if (codeBytes + bytes > MOST_CODES * usable) return false;
    codeBytes += bytes;
    extraBytes.set(format, bytes);
    return true;
  });
  return {
    linearVariants,
    weightBytes: Object.fromEntries(linearVariants.map((id) => [id, bytesOf(id)])),
    codeBytes,
    kvMemoryBytes: usable - codeBytes,
  };
}
