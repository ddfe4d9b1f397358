export interface CudaFiles {
  readonly library: string;
  readonly runner: string;
}
export type CudaFlavour = 'emulated' | 'sanitized' | 'native';
export const cudaFiles: Readonly<Record<CudaFlavour, CudaFiles>>;
export function buildCuda(options?: {
  flavour?: CudaFlavour;
  nvcc?: string;
  log?: (line: string) => void;
  areWarningsShown?: boolean;
}): Promise<CudaFiles | null>;
