/**
 * What a device can do: every operation's variants as plain data. Read by execution paths (which choose among them),
 * by the worker (which binds them) and by people (`npx variator paths`). Holds no native code and imports none.
 */

import {
  type CudaAttention,
  type CudaAttentionFormat,
  type CudaLinear,
  type CudaVariant,
  cudaAttentions,
  cudaLinears,
  cudaNeeds,
  cudaSplitTokensRange,
  cudaWeightFormats,
} from './cuda-variants.ts';
import { type TensorDtype, type TensorSource, tensorDtypes } from './model/model-shape.ts';

/** Instruction sets that integer panels are multiplied with, fastest first. */
const panelIsas = ['avx512vnni', 'avx512', 'avx2', 'generic'] as const;
type PanelIsa = (typeof panelIsas)[number];
/** The most that a process may be held to; see native.ts. */
export const isaLimits = ['generic', 'avx2', 'avx512', 'avx512vnni', 'all'] as const;
export type IsaLimit = (typeof isaLimits)[number];

/** What integer panels hold, most worth having first; see native/panels.h. */
const panelFamilies = ['int4', 'int8', 'int4-rounded', 'int8-residual'] as const;
type PanelFamily = (typeof panelFamilies)[number];
const bf16Isas = ['avx512bf16', 'generic'] as const;
type Bf16Isa = (typeof bf16Isas)[number];
export type LinearVariantId =
  | 'linear.reference'
  | `linear.${PanelFamily}-${PanelIsa}`
  | `linear.bf16-${Bf16Isa}`
  | `linear.cuda-${CudaLinear}`;
export type AttentionVariantId =
  | 'attention.reference'
  | 'attention.float32'
  | 'attention.bf16'
  | 'attention.int8'
  | `attention.cuda-${CudaAttentionFormat}`;
/** How keys and values lie in the KV cache. */
export type KvFormat = 'float32' | 'bf16' | 'int8' | 'fp8';

export interface Variant {
  readonly id: LinearVariantId | AttentionVariantId;
  readonly operation: 'linear' | 'attention';
  /** The kind of device it is for: a path's variants are all for its worker's. */
  readonly device: 'cpu' | 'cuda';
  /** What the weights are held as, instructions apart. */
  readonly kind: string;
  /** Dtypes whose weights it holds without another rounding; of those of `tensorDtypes` that are not here it says how near. */
  readonly exactDtypes: readonly TensorDtype[];
  /** Which matrices it takes: sizes that are no multiple are filled up; on a GPU the variant is not offered then. */
  readonly shape: { readonly rowsPadTo: number; readonly columnsPadTo: number } | null;
  /** The device's features that the variant needs, as `MachineProbe.features` names them; empty means any CPU. */
  readonly needs: readonly string[];
  /** Variants of one operation with the same word here give the same bits on the same model. */
  readonly bits: string;
  /** True when a row's bits do not depend on the batch, chunk or cache state around it. */
  readonly isBatchInvariant: boolean;
  /** `exact` equals the reference bit for bit; `tolerant` agrees within the stated tolerance. */
  readonly numerics: 'exact' | 'tolerant';
  /** What "tolerant" means, in a sentence with figures; empty for exact variants. */
  readonly tolerance: string;
  readonly summary: string;
}

const eightBitDtypes: readonly TensorDtype[] = ['Q8_0', 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1'];
const panelShape = { rowsPadTo: 32, columnsPadTo: 32 };
/** What int4 panels hold as int8 ones do. */
const fourBitDtypes: ReadonlySet<TensorDtype> = new Set(['Q4_0', 'Q4_1', 'Q4_K']);
const panelNeeds: Readonly<Record<PanelIsa, readonly string[]>> = {
  avx512vnni: ['avx512f', 'avx512bw', 'avx512vl', 'avx512dq', 'avx512vnni'],
  avx512: ['avx512f', 'avx512bw', 'avx512vl', 'avx512dq'],
  avx2: ['avx2', 'f16c'],
  generic: [],
};
const panelKinds: Readonly<Record<PanelFamily, Pick<Variant, 'bits' | 'tolerance' | 'summary'>>> = {
  int4: {
    // The same codes under the same scales give the same sums, in nibbles or in bytes.
    bits: 'int8',
    tolerance: 'the same token at 94 % of golden positions or more',
    summary: 'matrices that lie in 4 bits kept so, the others as int8',
  },
  int8: {
    bits: 'int8',
    tolerance: 'the same token at 94 % of golden positions or more',
    summary: 'int8 panels',
  },
  'int4-rounded': {
    bits: 'int4-rounded',
    tolerance:
      'weights of the layers rounded to 16 steps in groups of 32; the agreement depends on the model',
    summary: 'every matrix of a layer in 4 bits, the LM head as int8',
  },
  'int8-residual': {
    bits: 'int8-residual',
    tolerance:
      'what that leaves over is rounded once more and multiplied, too; the same token at 99.5 % of positions or more',
    summary: 'the panels of int4, each multiplied twice: 15 bits of activations',
  },
};
const bf16Needs: Readonly<Record<Bf16Isa, readonly string[]>> = {
  avx512bf16: ['avx512f', 'avx512bw', 'avx512vl', 'avx512bf16'],
  generic: [],
};
const panelSummaries: Readonly<Record<PanelIsa, string>> = {
  avx512vnni: 'AVX-512 VNNI',
  avx512: 'AVX-512 without VNNI',
  avx2: 'AVX2',
  generic: 'portable C++',
};

const cudaAttentionNames = Object.keys(cudaAttentions) as CudaAttentionFormat[];
/** The attention variants that are for a GPU, the one to begin with first. */
export const cudaAttentionVariants: readonly AttentionVariantId[] = cudaAttentionNames.map(
  (name): AttentionVariantId => `attention.cuda-${name}`,
);

const cudaLinearNames = Object.keys(cudaLinears) as CudaLinear[];
/** The linear variants that are for a GPU, the one to begin with first: it is batch-invariant. */
export const cudaLinearVariants = cudaLinearNames.map(
  (name): `linear.cuda-${CudaLinear}` => `linear.cuda-${name}`,
);

/** Those that a model's heads suit. */
export function cudaAttentionsFor(headSize: number, headsPerKvHead: number): readonly AttentionVariantId[] {
  return cudaAttentionVariants.filter((id) => {
    const { heads }: CudaAttention = cudaAttentions[cudaAttentionOf(id)];
    return heads === null || (heads.sizes.includes(headSize) && headsPerKvHead <= heads.mostPerKvHead);
  });
}

/** @throws Error for a variant that is not for a GPU */
export function cudaAttentionOf(id: AttentionVariantId): CudaAttentionFormat {
  const name = cudaAttentionNames.find((each) => id === `attention.cuda-${each}`);
  if (name === undefined) throw new Error(`${id} is no variant for a GPU.`);
  return name;
}

/** @throws Error for a variant that is not for a GPU */
export function cudaLinearOf(id: LinearVariantId): CudaLinear {
  const name = cudaLinearNames.find((each) => id === `linear.cuda-${each}`);
  if (name === undefined) throw new Error(`${id} is no variant for a GPU.`);
  return name;
}

export const catalogue: readonly Variant[] = [
  {
    id: 'linear.reference',
    operation: 'linear',
    device: 'cpu',
    kind: 'float32',
    exactDtypes: tensorDtypes,
    shape: { rowsPadTo: 1, columnsPadTo: 1 },
    needs: [],
    bits: 'float32',
    isBatchInvariant: true,
    numerics: 'exact',
    tolerance: '',
    summary: 'float32 dot products in one fixed order; weights dequantised as they are used',
  },
  ...panelFamilies.flatMap((family) =>
    panelIsas.map((isa): Variant => {
      const { bits, tolerance, summary } = panelKinds[family];
      return {
        id: `linear.${family}-${isa}`,
        operation: 'linear',
        device: 'cpu',
        kind: family,
        exactDtypes: family === 'int4-rounded' ? ['Q4_0', 'Q4_1'] : eightBitDtypes,
        shape: panelShape,
        needs: panelNeeds[isa],
        bits,
        isBatchInvariant: true,
        numerics: 'tolerant',
        tolerance: `activations rounded to int8 in groups of 32; ${tolerance}`,
        summary: `${summary}, ${panelSummaries[isa]}`,
      };
    }),
  ),
  ...bf16Isas.map(
    (isa): Variant => ({
      id: `linear.bf16-${isa}`,
      operation: 'linear',
      device: 'cpu',
      kind: 'bf16',
      exactDtypes: ['BF16'],
      shape: panelShape,
      needs: bf16Needs[isa],
      // The instruction rounds otherwise than portable code.
      bits: `bf16-${isa}`,
      isBatchInvariant: true,
      numerics: 'tolerant',
      tolerance:
        'weights and activations rounded to bf16; the same token as the reference at 99.5 % of positions or more',
      summary: `bf16 panels, ${isa === 'generic' ? 'portable C++' : 'AVX-512 BF16'}`,
    }),
  ),
  {
    id: 'attention.reference',
    operation: 'attention',
    device: 'cpu',
    kind: 'float32',
    exactDtypes: [],
    shape: null,
    needs: [],
    bits: 'float32',
    isBatchInvariant: true,
    numerics: 'exact',
    tolerance: '',
    summary: 'paged attention in float32, one fixed order along the context',
  },
  {
    id: 'attention.float32',
    operation: 'attention',
    device: 'cpu',
    kind: 'float32',
    exactDtypes: [],
    shape: null,
    needs: [],
    bits: 'float32 splits',
    isBatchInvariant: true,
    numerics: 'tolerant',
    tolerance: 'another order of the same float32 sums: logits within 1e-4 of the largest',
    summary: 'splits of a context that threads share, fused multiply-adds; float32 KV cache',
  },
  {
    id: 'attention.bf16',
    operation: 'attention',
    device: 'cpu',
    kind: 'bf16',
    exactDtypes: [],
    shape: null,
    needs: [],
    bits: 'bf16',
    isBatchInvariant: true,
    numerics: 'tolerant',
    tolerance: 'keys and values rounded to bf16: logits within 3 % of the largest',
    summary: 'the same with a bf16 KV cache: half the memory',
  },
  {
    id: 'attention.int8',
    operation: 'attention',
    device: 'cpu',
    kind: 'int8',
    exactDtypes: [],
    shape: null,
    needs: [],
    bits: 'int8',
    isBatchInvariant: true,
    numerics: 'tolerant',
    tolerance:
      'keys, values and queries rounded to int8, one scale a token and head: logits within 12 % of the largest',
    summary: 'the same with an int8 KV cache: about a quarter of the memory; by VNNI where there is any',
  },
  ...cudaLinearVariants.map((id): Variant => {
    const variant: CudaVariant = cudaLinears[cudaLinearOf(id)];
    const { bits, weights, isBatchInvariant, tolerance, summary, needsAlso } = variant;
    return {
      id,
      operation: 'linear',
      device: 'cuda',
      kind: bits,
      exactDtypes: weights === 'bf16' ? ['BF16'] : [],
      shape: { rowsPadTo: 1, columnsPadTo: cudaWeightFormats[weights].columnStep },
      needs: needsAlso === undefined ? cudaNeeds : [...cudaNeeds, needsAlso],
      bits,
      isBatchInvariant,
      numerics: 'tolerant',
      tolerance,
      summary,
    };
  }),
  ...cudaAttentionNames.map((name): Variant => {
    const { bits, isBatchInvariant, tolerance, summary } = cudaAttentions[name];
    return {
      id: `attention.cuda-${name}`,
      operation: 'attention',
      device: 'cuda',
      kind: name,
      exactDtypes: [],
      shape: null,
      needs: cudaNeeds,
      bits,
      isBatchInvariant,
      numerics: 'tolerant',
      tolerance,
      summary,
    };
  }),
];

/** The attention variants of a CPU, the one to begin with first: half the memory of float32 and, from some 100 tokens on, quicker. */
export const attentionVariants: readonly AttentionVariantId[] = [
  'attention.bf16',
  'attention.float32',
  'attention.int8',
  'attention.reference',
];

/**
 * Positions of a split, the pieces that a context is attended to in: powers of two in this range. A path's own setting
 * (`splitTokens`), since it is the order of sums and so decides bits; `attention.reference` has no splits.
 */
export const splitTokensRange = { least: 128, most: 2048, usual: 512 } as const;
/** The same of a variant. */
export const splitTokensRangeOf = (
  attention: AttentionVariantId,
): { readonly least: number; readonly most: number } =>
  cudaAttentionVariants.includes(attention) ? cudaSplitTokensRange : splitTokensRange;

/** What the KV cache must look like for a variant. A change between two formats converts it (kv_cache.h). */
export function kvFormatOf(attention: AttentionVariantId): KvFormat {
  const cuda = cudaAttentionNames.find((name) => attention === `attention.cuda-${name}`);
  if (cuda !== undefined) return cudaAttentions[cuda].kvFormat;
  if (attention === 'attention.bf16') return 'bf16';
  return attention === 'attention.int8' ? 'int8' : 'float32';
}

/**
 * The linear variants this CPU can run, the one to begin with first; `linear.reference` is always the last. Where the
 * matrices' dtypes are given, those that would be another variant under a second name are left out.
 */
export function linearVariantsFor(
  features: readonly string[],
  dtypes?: ReadonlySet<TensorDtype>,
): LinearVariantId[] {
  const all = [...(dtypes ?? [])];
  const isDistinct: Readonly<Record<PanelFamily, boolean>> = {
    int8: true,
    'int8-residual': true,
    int4: dtypes === undefined || all.some((dtype) => fourBitDtypes.has(dtype)),
    'int4-rounded': dtypes === undefined || !all.every((dtype) => fourBitDtypes.has(dtype)),
  };
  const ids: LinearVariantId[] = [
    ...panelFamilies
      .filter((family) => isDistinct[family])
      .flatMap((family) => panelIsas.map((isa): LinearVariantId => `linear.${family}-${isa}`)),
    ...bf16Isas.map((isa): LinearVariantId => `linear.bf16-${isa}`),
    'linear.reference',
  ];
  return ids.filter((id) => variantOf(id).needs.every((feature) => features.includes(feature)));
}

/** The kind whose packed matrices a kind of linear variant reads. */
export const packingOf = (kind: string): string => (kind === 'int8-residual' ? 'int4' : kind);

/** Bytes of a matrix as the variant reads it; the LM head is never rounded to 4 bits. */
export function weightBytes(id: LinearVariantId, tensor: TensorSource, role: 'layer' | 'head'): number {
  const { rows, columns, dtype, byteLength } = tensor;
  const { kind, device } = variantOf(id);
  if (kind === 'float32') return byteLength;
  if (device === 'cuda') {
    const { layerBytes, headBytes } = cudaWeightFormats[cudaLinears[cudaLinearOf(id)].weights];
    return (role === 'head' ? headBytes : layerBytes)(rows, columns);
  }
  if (kind === 'bf16') return Math.ceil(rows / 32) * Math.ceil(columns / 32) * 2048;
  const isFourBit =
    packingOf(kind) !== 'int8' && (fourBitDtypes.has(dtype) || (kind === 'int4-rounded' && role === 'layer'));
  const hasMinimums = dtype !== (isFourBit ? 'Q4_0' : 'Q8_0');
  const groupBytes = (isFourBit ? 512 : 1024) + (hasMinimums ? 128 : 64);
  return Math.ceil(rows / 32) * Math.ceil(columns / 32) * groupBytes;
}

export function variantOf(id: Variant['id']): Variant {
  const variant = catalogue.find((candidate) => candidate.id === id);
  if (variant === undefined) throw new Error(`The catalogue has no variant ${id}.`);
  return variant;
}

/** Of variants that stand fastest first, those that no other of their kind does better. */
export function fastestOfEachKind(ids: readonly LinearVariantId[]): LinearVariantId[] {
  return ids.filter(
    (id, index) => ids.findIndex((other) => variantOf(other).kind === variantOf(id).kind) === index,
  );
}

/** What is worth trying for speed: not what is more exact than int8 and never quicker, which people choose. */
export const worthTrying = (ids: readonly LinearVariantId[]): LinearVariantId[] =>
  fastestOfEachKind(ids).filter((id) => variantOf(id).kind !== 'int8-residual');
