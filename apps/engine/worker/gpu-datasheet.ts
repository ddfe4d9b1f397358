/**
 * Datasheet figures of the GPUs that the CUDA kernels are compiled for, by a part of the name that the driver gives: peak
 * memory bandwidth, dense bf16 rate. The start of step-time fits where nothing was measured; used by cuda-device.ts. Pure.
 */
interface GpuFigures {
  readonly readBytesPerSecond: number;
  readonly bfloat16FlopsPerSecond: number;
}

/** The first whose words all stand in the name. */
const figures: readonly (readonly [words: readonly string[], GpuFigures])[] = [
  [['GH200', '144G'], { readBytesPerSecond: 4.9e12, bfloat16FlopsPerSecond: 989e12 }],
  [['GH200'], { readBytesPerSecond: 4e12, bfloat16FlopsPerSecond: 989e12 }],
  [['H200', 'NVL'], { readBytesPerSecond: 4.8e12, bfloat16FlopsPerSecond: 835e12 }],
  [['H200'], { readBytesPerSecond: 4.8e12, bfloat16FlopsPerSecond: 989e12 }],
  [['H100', 'NVL'], { readBytesPerSecond: 3.9e12, bfloat16FlopsPerSecond: 835e12 }],
  [['H100', 'PCIe'], { readBytesPerSecond: 2e12, bfloat16FlopsPerSecond: 756e12 }],
  [['H100'], { readBytesPerSecond: 3.35e12, bfloat16FlopsPerSecond: 989e12 }],
];

/** null for a GPU that has no entry. */
export const gpuFigures = (name: string): GpuFigures | null =>
  figures.find(([words]) => words.every((word) => name.includes(word)))?.[1] ?? null;
