// linearByMma of linear.h: linear_mma.cuh for weights in bf16.
#include "linear_mma.cuh"

namespace variator::cuda {

int32_t mmaTileCount() { return static_cast<int32_t>(sizeof(mmaTiles<MmaBf16>) / sizeof(mmaTiles<MmaBf16>[0])); }

MmaTile mmaTileOf(int32_t tile) { return mmaTiles<MmaBf16>[tile - 1].shape; }

int32_t defaultMmaTile(int32_t rowCount) {
  if (rowCount <= 8) return 1;
  if (rowCount <= 16) return 4;
  if (rowCount <= 32) return 5;
  if (rowCount <= 128) return 6;
  return 8;
}

void linearByMma(const LinearArguments& arguments, int32_t tile, Stream stream) { linearByMmaOf(arguments, MmaBf16{arguments.weight}, tile, 8, stream); }

}  // namespace variator::cuda
