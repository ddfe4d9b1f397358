/** Datasheet figures of machines that can be simulated: dense rates, peak bandwidth. */
export const simulatedMachines = {
  l4: {
    title: 'NVIDIA L4 24GB',
    memoryBytes: 24e9,
    readBytesPerSecond: 0.3e12,
    bfloat16FlopsPerSecond: 121e12,
    int8OpsPerSecond: 242e12,
  },
  a100: {
    title: 'NVIDIA A100 80GB',
    memoryBytes: 80e9,
    readBytesPerSecond: 2.04e12,
    bfloat16FlopsPerSecond: 312e12,
    int8OpsPerSecond: 624e12,
  },
  h100: {
    title: 'NVIDIA H100 80GB',
    memoryBytes: 80e9,
    readBytesPerSecond: 3.35e12,
    bfloat16FlopsPerSecond: 989e12,
    int8OpsPerSecond: 1979e12,
  },
  h200: {
    title: 'NVIDIA H200 141GB',
    memoryBytes: 141e9,
    readBytesPerSecond: 4.8e12,
    bfloat16FlopsPerSecond: 989e12,
    int8OpsPerSecond: 1979e12,
  },
} as const;

export type SimulatedDeviceName = keyof typeof simulatedMachines;
