/**
 * What a device can do: every operation's variants as plain data. Read by execution paths (which choose among them),
 * by the worker (which binds them) and by people (`npx variator paths`). Holds no native code and imports none.
 */

export type LinearVariantId = 'linear.reference' | 'linear.int8-generic' | 'linear.int8-avx512vnni';
export type AttentionVariantId = 'attention.reference';

export interface Variant {
  readonly id: LinearVariantId | AttentionVariantId;
  readonly operation: 'linear' | 'attention';
  /** The CPU features the variant needs, as `MachineProbe.features` names them; empty means any machine. */
  readonly needs: readonly string[];
  /** True when a row's bits do not depend on the batch, chunk or cache state around it. */
  readonly isBatchInvariant: boolean;
  /** `exact` equals the reference bit for bit; `tolerant` agrees within the stated tolerance. */
  readonly numerics: 'exact' | 'tolerant';
  /** What "tolerant" means, in a sentence with figures; empty for exact variants. */
  readonly tolerance: string;
  readonly summary: string;
}

export const catalogue: readonly Variant[] = [
  {
    id: 'linear.reference',
    operation: 'linear',
    needs: [],
    isBatchInvariant: true,
    numerics: 'exact',
    tolerance: '',
    summary: 'float32 dot products in one fixed order; weights dequantised as they are used',
  },
  {
    id: 'linear.int8-generic',
    operation: 'linear',
    needs: [],
    isBatchInvariant: true,
    numerics: 'tolerant',
    tolerance:
      'activations rounded to int8 in groups of 32; the same token at 94 % of golden positions or more',
    summary: 'int8 panels, portable C++',
  },
  {
    id: 'linear.int8-avx512vnni',
    operation: 'linear',
    needs: ['avx512f', 'avx512bw', 'avx512vl', 'avx512vnni'],
    isBatchInvariant: true,
    numerics: 'tolerant',
    tolerance:
      'activations rounded to int8 in groups of 32; the same token at 94 % of golden positions or more',
    summary: 'int8 panels, AVX-512 VNNI',
  },
  {
    id: 'attention.reference',
    operation: 'attention',
    needs: [],
    isBatchInvariant: true,
    numerics: 'exact',
    tolerance: '',
    summary: 'paged attention in float32, one fixed order along the context',
  },
];

/** The linear variants this machine can run, fastest first; `linear.reference` is always the last. */
export function linearVariantsFor(features: readonly string[]): LinearVariantId[] {
  const fastestFirst: LinearVariantId[] = [
    'linear.int8-avx512vnni',
    'linear.int8-generic',
    'linear.reference',
  ];
  return fastestFirst.filter((id) => {
    const variant = catalogue.find((candidate) => candidate.id === id);
    return variant?.needs.every((feature) => features.includes(feature)) ?? false;
  });
}
