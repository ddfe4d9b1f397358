// Adds what a block of the model has computed to the residual stream, and normalises the sum by its root mean square: one
// pass over the residual. Called by the engine before every projection. A row's bits depend on the row alone.
#pragma once
#include "formats.h"
#include "gpu.h"

namespace variator::cuda {

struct RmsNormArguments {
  float* residual;            // [rows of the step, size]; the sum is written back where there is something to add
  const Bf16* addend;         // [rows of the step, size] or null
  const float* weight;        // [size]
  const int32_t* rowIndices;  // [rowCount] rows of the step that are wanted, or null for the first rowCount
  Bf16* out;                  // [rowCount, size]
  int32_t rowCount;
  int32_t size;               // a multiple of 4
  float epsilon;
};

void rmsNorm(const RmsNormArguments& arguments, Stream stream);

}  // namespace variator::cuda
