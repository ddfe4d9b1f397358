// linearByMma of linear_quantised.h: linear_mma.cuh for weights in e4m3.
#include "linear_mma.cuh"

namespace variator::cuda {

void linearByMma(const LinearArguments& arguments, const Fp8Matrix& matrix, int32_t tile, Stream stream) {
  linearByMmaOf(arguments, MmaFp8{matrix}, tile, fp8ColumnStep, stream);
}

}  // namespace variator::cuda
