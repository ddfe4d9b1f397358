/**
 * What the CUDA kernels can do, as plain data: the variants of the catalogue that are for a GPU, and the settings that
 * change no bit, with their ranges. Read by catalogue.ts and execution-path.ts; cuda-device.ts turns a path into the
 * library's numbers by it (native/cuda/variator_cuda.h). Holds no native code and imports none.
 */

type BytesOf = (rows: number, columns: number) => number;
const bf16Bytes: BytesOf = (rows, columns) => 2 * rows * columns;
const fp8Bytes: BytesOf = (rows, columns) => rows * columns + 4 * rows;

/**
 * What matrices are held as: VariatorCudaPath.weights; the columns' least multiple; bytes of a layer's matrix and of the LM
 * head. The bf16 ones are always there; codes are made of them on the device when a path is prepared, and stay.
 */
export const cudaWeightFormats = {
  bf16: { number: 0, columnStep: 8, layerBytes: bf16Bytes, headBytes: bf16Bytes },
  fp8: { number: 1, columnStep: 16, layerBytes: fp8Bytes, headBytes: fp8Bytes },
  int4: {
    number: 2,
    columnStep: 32,
    layerBytes: (rows: number, columns: number) => (rows * columns) / 2 + 4 * rows * Math.ceil(columns / 128),
    headBytes: fp8Bytes,
  },
} as const;
export type CudaWeightFormat = keyof typeof cudaWeightFormats;

export interface CudaVariant {
  /** What it needs of the device besides `cudaNeeds`; as `MachineProbe.features` names it. */
  readonly needsAlso?: 'cublaslt';
  /** VariatorCudaPath.linear. */
  readonly number: number;
  readonly weights: CudaWeightFormat;
  readonly bits: string;
  readonly isBatchInvariant: boolean;
  readonly tolerance: string;
  readonly summary: string;
}

const rounding =
  'weights and activations rounded to bf16, sums in float32; shown on the emulated device alone: the same token at 94 % of golden positions or more';
/** Random weights have near ties in plenty; trained ones agree at more positions. */
const agreement = (least: number): string =>
  `shown on the emulated device alone: the same token at ${least} % of golden positions or more with random weights, at all 60 that were tried with trained ones`;
const fp8Rounding = `weights rounded to e4m3 with a scale a row, activations to bf16, sums in float32; ${agreement(80)}`;
const int4Rounding = `weights of the layers rounded to 16 steps in groups of 128, the LM head to e4m3, activations to bf16; the agreement depends on the model, ${agreement(40)}`;
const byRowCount =
  "up to 8 rows are summed in another order than more, so a row's bits depend on the step around it";
/** The one to begin with first. */
export const cudaLinears = {
  'bf16-mma': {
    number: 0,
    weights: 'bf16',
    bits: 'cuda-bf16',
    isBatchInvariant: true,
    tolerance: rounding,
    summary: 'bf16 matrices by tensor cores (mma.sync), one kernel for every number of rows',
  },
  'bf16-gemv': {
    number: 1,
    weights: 'bf16',
    bits: 'cuda-bf16-gemv',
    isBatchInvariant: false,
    tolerance: `${rounding}; ${byRowCount}`,
    summary: 'the same, but steps of up to 8 rows by GEMV',
  },
  'bf16-wgmma': {
    number: 2,
    weights: 'bf16',
    bits: 'cuda-bf16-wgmma',
    isBatchInvariant: false,
    tolerance: `${rounding}; steps of up to 8 rows, of 128 and more, and the attention of long chunks are summed in other orders, so a row's bits depend on the step around it`,
    summary:
      "and steps of 128 rows or more by Hopper's wgmma, chunks' attention, too, for heads of 64 and 128",
  },
  'bf16-library': {
    needsAlso: 'cublaslt',
    number: 3,
    weights: 'bf16',
    bits: 'cuda-bf16-library',
    isBatchInvariant: false,
    tolerance: `${rounding}, by a stand-in for the library; it sums in orders of its own, by the number of rows`,
    summary: 'up to 8 rows by GEMV, more by cuBLASLt, where it is installed',
  },
  'bf16-skinny': {
    number: 4,
    weights: 'bf16',
    bits: 'cuda-bf16-skinny',
    isBatchInvariant: false,
    tolerance: `${rounding}; ${byRowCount}`,
    summary: 'as bf16-wgmma, and steps of 9 to 64 rows by wgmma with the operands exchanged',
  },
  'fp8-mma': {
    number: 0,
    weights: 'fp8',
    bits: 'cuda-fp8',
    isBatchInvariant: true,
    tolerance: fp8Rounding,
    summary: 'e4m3 matrices, multiplied as bf16 by tensor cores, one kernel for every number of rows',
  },
  'fp8-gemv': {
    number: 1,
    weights: 'fp8',
    bits: 'cuda-fp8-gemv',
    isBatchInvariant: false,
    tolerance: `${fp8Rounding}; ${byRowCount}`,
    summary: 'the same, but steps of up to 8 rows by GEMV',
  },
  'fp8-wgmma': {
    number: 2,
    weights: 'fp8',
    bits: 'cuda-fp8-wgmma',
    isBatchInvariant: false,
    tolerance: `${fp8Rounding}; in steps of 128 rows or more activations are rounded to e4m3, too, with a scale a row; a row's bits depend on the step around it`,
    summary: "and steps of 128 rows or more in 8 bits by wgmma, chunks' attention by wgmma, too",
  },
  'fp8-skinny': {
    number: 4,
    weights: 'fp8',
    bits: 'cuda-fp8-skinny',
    isBatchInvariant: false,
    tolerance: `${fp8Rounding}; in steps of 9 to 64 rows and of 128 or more activations are rounded to e4m3, too, with a scale a row; a row's bits depend on the step around it`,
    summary: 'as fp8-wgmma, and steps of 9 to 64 rows in 8 bits by wgmma with the operands exchanged',
  },
  'int4-mma': {
    number: 0,
    weights: 'int4',
    bits: 'cuda-int4',
    isBatchInvariant: true,
    tolerance: int4Rounding,
    summary: '4-bit matrices, multiplied as bf16 by tensor cores, one kernel for every number of rows',
  },
  'int4-gemv': {
    number: 1,
    weights: 'int4',
    bits: 'cuda-int4-gemv',
    isBatchInvariant: false,
    tolerance: `${int4Rounding}; ${byRowCount}`,
    summary: 'the same, but steps of up to 8 rows by GEMV',
  },
} as const satisfies Readonly<Record<string, CudaVariant>>;
export type CudaLinear = keyof typeof cudaLinears;

export interface CudaAttention {
  /** VariatorCudaPath.kvFormat. */
  readonly number: number;
  readonly kvFormat: 'bf16' | 'fp8';
  /** VariatorCudaPath.decode. */
  readonly decode: number;
  /** Heads that it is compiled for, and how many may share a KV head; null: whatever the library takes. */
  readonly heads: { readonly sizes: readonly number[]; readonly mostPerKvHead: number } | null;
  readonly bits: string;
  readonly isBatchInvariant: boolean;
  readonly tolerance: string;
  readonly summary: string;
}

/** By what the KV cache holds; the one to begin with first. */
export const cudaAttentions = {
  bf16: {
    number: 0,
    kvFormat: 'bf16',
    decode: 0,
    heads: null,
    bits: 'cuda-bf16',
    isBatchInvariant: true,
    tolerance: 'keys, values, queries and weights of the sum rounded to bf16, sums in float32',
    summary: 'paged attention by tensor cores over splits of a context; bf16 KV cache',
  },
  'bf16-wgmma': {
    number: 0,
    kvFormat: 'bf16',
    decode: 1,
    heads: { sizes: [64, 128], mostPerKvHead: 16 },
    bits: 'cuda-bf16-wgmma',
    isBatchInvariant: false,
    tolerance:
      "as bf16; shown on the emulated device alone; decoding rows are summed in another order than chunks and drafts, so a row's bits depend on which it was",
    summary:
      "the same, but decoding rows by Hopper's wgmma with the operands exchanged, one launch; heads of 64 and 128",
  },
  fp8: {
    number: 1,
    kvFormat: 'fp8',
    decode: 0,
    heads: null,
    bits: 'cuda-fp8',
    isBatchInvariant: true,
    tolerance:
      'keys and values rounded to e4m3, one scale a token and head, the rest as with bf16; shown on the emulated device alone: the same token at 90 % of golden positions or more',
    summary: 'the same with a KV cache in e4m3: about half the memory; by mma.sync in every step',
  },
} as const satisfies Readonly<Record<string, CudaAttention>>;
export type CudaAttentionFormat = keyof typeof cudaAttentions;

/** Positions of a split: powers of two in this range; see `splitTokensRange` of catalogue.ts. */
export const cudaSplitTokensRange = { least: 64, most: 512, usual: 512 } as const;

/** Devices that the library is compiled for. */
export const cudaNeeds: readonly string[] = ['sm90'];

export interface CudaKernel {
  readonly id: 'mma' | 'gemv' | 'graphs';
  readonly parameters: Readonly<
    Record<string, { readonly values: readonly number[]; readonly usual: number; readonly meaning: string }>
  >;
}

/** None of these changes a bit. */
export const cudaKernels: readonly CudaKernel[] = [
  {
    id: 'mma',
    parameters: {
      tile: {
        values: [0, 1, 2, 3, 4, 5, 6, 7, 8],
        usual: 0,
        meaning: 'which of its tiles multiplies; 0: by the number of rows',
      },
    },
  },
  {
    id: 'gemv',
    parameters: {
      rowsPerWarp: {
        values: [1, 2, 4],
        usual: 2,
        meaning: 'rows of the matrix that a warp multiplies; of codes 2 at most',
      },
      loads: { values: [4, 8], usual: 8, meaning: '16-byte loads in flight of each row; of codes 4' },
    },
  },
  {
    id: 'graphs',
    parameters: {
      use: {
        values: [0, 1],
        usual: 1,
        meaning: 'decode steps by CUDA graphs, filled up to the next captured number of sequences',
      },
    },
  },
];

/** Values by `kernel.parameter`. */
export type CudaTiles = Readonly<Record<string, number>>;

export const usualCudaTiles: CudaTiles = Object.fromEntries(
  cudaKernels.flatMap(({ id, parameters }) =>
    Object.entries(parameters).map(([name, { usual }]) => [`${id}.${name}`, usual]),
  ),
);

/**
 * What a path says about tiles, as `gemv.rowsPerWarp=4+mma.tile=2+graphs.use=0`. Nothing is measured when a GPU's worker
 * starts: `measured` and `prior` are the usual values.
 * @returns a sentence that says what is wrong where one is
 */
export function readCudaTiles(tiles: string): CudaTiles | string {
  if (tiles === 'measured' || tiles === 'prior') return usualCudaTiles;
  const settings: Record<string, number> = { ...usualCudaTiles };
  for (const part of tiles.split('+')) {
    const [, kernelId, parameter = '', digits] = /^(\w+)\.(\w+)=(\d{1,6})$/.exec(part) ?? [];
    const parameters = cudaKernels.find(({ id }) => id === kernelId)?.parameters;
    const known =
      parameters !== undefined && Object.hasOwn(parameters, parameter) ? parameters[parameter] : undefined;
    if (known === undefined) {
      return `tiles on a GPU must be measured, prior, or settings such as gemv.rowsPerWarp=4+mma.tile=2+graphs.use=0, not "${part}".`;
    }
    if (!known.values.includes(Number(digits))) {
      return `tiles: ${kernelId}.${parameter} must be one of ${known.values.join(', ')}, not ${digits}.`;
    }
    settings[`${kernelId}.${parameter}`] = Number(digits);
  }
  return settings;
}
