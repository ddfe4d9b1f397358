// See rms_norm.h. One block a row; the number of threads depends on the row's size alone.
#include "rms_norm.h"

#include <algorithm>

#include "block_sums.cuh"

namespace variator::cuda {
namespace {

constexpr int mostThreads = 256;

DEVICE float squareOfFour(const float (&x)[4]) {
  float sum = multiplyRounded(x[0], x[0]);
#pragma unroll
  for (int i = 1; i < 4; i++) sum = multiplyAdd(x[i], x[i], sum);
  return sum;
}

DEVICE void loadFour(const float* from, float (&out)[4]) {
  const Bytes16 bytes = load16(from);
#pragma unroll
  for (int i = 0; i < 4; i++) out[i] = floatOfBits(bytes.words[i]);
}

KERNEL(mostThreads) void rmsNormRow(const RmsNormArguments a) {
  const uint32_t row = a.rowIndices == nullptr ? blockIndex().x : static_cast<uint32_t>(a.rowIndices[blockIndex().x]);
  float* residual = a.residual + static_cast<int64_t>(row) * a.size;
  float sum = 0;
  for (int32_t at = 4 * static_cast<int32_t>(thread()); at < a.size; at += 4 * static_cast<int32_t>(threadCount())) {
    float x[4];
    loadFour(residual + at, x);
    if (a.addend != nullptr) {
      const Bf16* addend = a.addend + static_cast<int64_t>(row) * a.size + at;
#pragma unroll
      for (int i = 0; i < 4; i++) x[i] = addRounded(x[i], toFloat(addend[i]));
      store16(residual + at, {{bitsOf(x[0]), bitsOf(x[1]), bitsOf(x[2]), bitsOf(x[3])}});
    }
    sum = addRounded(sum, squareOfFour(x));
  }
  sum = blockSum(sum, reinterpret_cast<float*>(sharedMemory()));
  const float factor = reciprocalRoot(addRounded(sum / static_cast<float>(a.size), a.epsilon));
  Bf16* out = a.out + static_cast<int64_t>(blockIndex().x) * a.size;
  for (int32_t at = 4 * static_cast<int32_t>(thread()); at < a.size; at += 4 * static_cast<int32_t>(threadCount())) {
    float x[4], weight[4];
    loadFour(residual + at, x);
    loadFour(a.weight + at, weight);
#pragma unroll
    for (int i = 0; i < 4; i++) out[at + i] = toBf16(multiplyRounded(weight[i], multiplyRounded(x[i], factor)));
  }
}

}  // namespace

void rmsNorm(const RmsNormArguments& arguments, Stream stream) {
  const auto threads = static_cast<uint32_t>(std::min<int64_t>(mostThreads, ceilDivide(arguments.size, 128) * 32));
  const auto sharedBytes = static_cast<int64_t>(threads / 32 * sizeof(float));
  launch("rmsNorm", rmsNormRow, {{static_cast<uint32_t>(arguments.rowCount)}, {threads}, sharedBytes}, stream, arguments);
}

}  // namespace variator::cuda
