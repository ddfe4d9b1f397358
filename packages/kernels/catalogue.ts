/**
 * What a device can do: every operation's variants as plain data. Read by execution paths (which choose among them),
 * by the worker (which binds them) and by people (`npx variator paths`). Holds no native code and imports none.
 */

/** Instruction sets that integer panels are multiplied with, fastest first. */
const panelIsas = ['avx512vnni', 'avx512', 'avx2', 'generic'] as const;
type PanelIsa = (typeof panelIsas)[number];
/** The most that a process may be held to; see native.ts. */
export const isaLimits = ['generic', 'avx2', 'avx512', 'avx512vnni', 'all'] as const;
export type IsaLimit = (typeof isaLimits)[number];

export type LinearVariantId = 'linear.reference' | `linear.int8-${PanelIsa}`;
export type AttentionVariantId = 'attention.reference';

export interface Variant {
  readonly id: LinearVariantId | AttentionVariantId;
  readonly operation: 'linear' | 'attention';
  /** The CPU features the variant needs, as `MachineProbe.features` names them; empty means any machine. */
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

const panelNeeds: Readonly<Record<PanelIsa, readonly string[]>> = {
  avx512vnni: ['avx512f', 'avx512bw', 'avx512vl', 'avx512dq', 'avx512vnni'],
  avx512: ['avx512f', 'avx512bw', 'avx512vl', 'avx512dq'],
  avx2: ['avx2', 'f16c'],
  generic: [],
};
const panelSummaries: Readonly<Record<PanelIsa, string>> = {
  avx512vnni: 'AVX-512 VNNI',
  avx512: 'AVX-512 without VNNI',
  avx2: 'AVX2',
  generic: 'portable C++',
};

export const catalogue: readonly Variant[] = [
  {
    id: 'linear.reference',
    operation: 'linear',
    needs: [],
    bits: 'float32',
    isBatchInvariant: true,
    numerics: 'exact',
    tolerance: '',
    summary: 'float32 dot products in one fixed order; weights dequantised as they are used',
  },
  ...panelIsas.map(
    (isa): Variant => ({
      id: `linear.int8-${isa}`,
      operation: 'linear',
      needs: panelNeeds[isa],
      bits: 'int8',
      isBatchInvariant: true,
      numerics: 'tolerant',
      tolerance:
        'activations rounded to int8 in groups of 32; the same token at 94 % of golden positions or more',
      summary: `int8 panels, ${panelSummaries[isa]}`,
    }),
  ),
  {
    id: 'attention.reference',
    operation: 'attention',
    needs: [],
    bits: 'float32',
    isBatchInvariant: true,
    numerics: 'exact',
    tolerance: '',
    summary: 'paged attention in float32, one fixed order along the context',
  },
];

/** The linear variants this machine can run, fastest first; `linear.reference` is always the last. */
export function linearVariantsFor(features: readonly string[]): LinearVariantId[] {
  const fastestFirst: LinearVariantId[] = [
    ...panelIsas.map((isa): LinearVariantId => `linear.int8-${isa}`),
    'linear.reference',
  ];
  return fastestFirst.filter((id) => variantOf(id).needs.every((feature) => features.includes(feature)));
}

export function variantOf(id: Variant['id']): Variant {
  const variant = catalogue.find((candidate) => candidate.id === id);
  if (variant === undefined) throw new Error(`The catalogue has no variant ${id}.`);
  return variant;
}

/** Of variants that stand fastest first, those that no other of the list does better: what is worth trying. */
export function fastestOfEachKind(ids: readonly LinearVariantId[]): LinearVariantId[] {
  const kindOf = (id: LinearVariantId) => variantOf(id).bits;
  return ids.filter((id, index) => ids.findIndex((other) => kindOf(other) === kindOf(id)) === index);
}
