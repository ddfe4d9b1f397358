// linearByMma of linear_quantised.h: linear_mma.cuh for weights in 4 bits.
#include "linear_mma.cuh"

namespace variator::cuda {

void linearByMma(const LinearArguments& arguments, const Int4Matrix& matrix, int32_t tile, Stream stream) {
  linearByMmaOf(arguments, MmaInt4{matrix}, tile, int4ColumnStep, stream);
}

}  // namespace variator::cuda
