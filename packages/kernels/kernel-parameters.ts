/**
 * Parameters of a CPU's kernels, with their ranges: what changes no bit, and which the tiles of a path name. Read by
 * tiles.ts, by those who measure (linear-dispatch.ts, attention-dispatch.ts) and by people (`npx variator paths`). A GPU's
 * are in cuda-variants.ts.
 */

/** Parameters of the linear kernels, in the order of LinearTuning in native/panels.h. */
export const tuningParameters = ['rowsAtOnce', 'prefetchGroups', 'slabRows', 'panelsAtOnce'] as const;
export type TuningParameter = (typeof tuningParameters)[number];

/** What a kernel's parameter may be. */
export interface ParameterRange {
  readonly least: number;
  readonly most: number;
  readonly meaning: string;
}

/** One of the ways in which every packed linear variant multiplies, by how many rows a step has. */
export interface LinearKernel {
  readonly id: 'gemv' | 'skinny' | 'full';
  /** Beyond them the next kernel of the list takes over. */
  readonly mostRows: number;
  readonly parameters: Readonly<Partial<Record<TuningParameter, ParameterRange>>>;
}

const rowsAtOnce = {
  least: 1,
  most: 6,
  meaning: 'rows of the step whose sums stay in registers; 4 at most without VNNI and BF16',
};
const slabRows = {
  least: 1,
  most: 96,
  meaning: 'rows that a panel is multiplied with before the next panel',
};
const panelsAtOnce = {
  least: 1,
  most: 32,
  meaning: 'panels of 32 matrix rows that a slab of rows passes before the next slab',
};
/**
 * Fewest rows first. All sum in the same order, so that one path may use each where it is quickest: which of them, with
 * which parameters, changes no bit (linear-dispatch.ts chooses).
 */
export const linearKernels: readonly LinearKernel[] = [
  {
    id: 'gemv',
    mostRows: 2,
    parameters: {
      prefetchGroups: { least: 0, most: 16, meaning: 'groups of 32 columns that weights are fetched ahead' },
    },
  },
  { id: 'skinny', mostRows: 32, parameters: { rowsAtOnce, slabRows, panelsAtOnce } },
  { id: 'full', mostRows: Number.POSITIVE_INFINITY, parameters: { rowsAtOnce, slabRows, panelsAtOnce } },
];

/** Parameters of attention by splits, in the order of AttentionTuning in native/attention_dispatch.h. */
export const attentionParameters = [
  'pairsAtOnce',
  'prefetchBlocks',
  'groupsPerSplit',
  'leastUnitsPerThread',
] as const;
export type AttentionParameter = (typeof attentionParameters)[number];

/** One of the ways in which attention by splits is computed, by how many rows of a sequence a step has. */
export interface AttentionKernel {
  readonly id: 'decode' | 'prefill';
  /** Beyond them the next kernel of the list takes over. */
  readonly mostRows: number;
  readonly parameters: Readonly<Record<AttentionParameter, ParameterRange>>;
}

const attentionRanges: AttentionKernel['parameters'] = {
  pairsAtOnce: {
    least: 1,
    most: 6,
    meaning: 'pairs of a row and a head, of one KV head, whose sums stay in registers',
  },
  prefetchBlocks: { least: 0, most: 8, meaning: 'KV blocks that keys and values are fetched ahead' },
  groupsPerSplit: {
    least: 1,
    most: 16,
    meaning: 'groups of such pairs that a split passes before the next split',
  },
  leastUnitsPerThread: {
    least: 0,
    most: 64,
    meaning: 'with fewer units of work a thread, contexts are cut into a unit for each split',
  },
};
/** Fewest rows first. Every pair's sums have one order, so which of them, with which parameters, changes no bit. */
export const attentionKernels: readonly AttentionKernel[] = [
  { id: 'decode', mostRows: 4, parameters: attentionRanges },
  { id: 'prefill', mostRows: Number.POSITIVE_INFINITY, parameters: attentionRanges },
];
