// rmsNorm against double precision: odd row counts and sizes, with and without an addend, rows picked out of order.
#include "../rms_norm.h"

#include <cmath>

#include "checks.h"

namespace variator::cuda {
namespace {

void checkOne(CheckRun& run, int32_t rowCount, int32_t size, bool hasAddend, bool isPicked) {
  Random random(run.seed + static_cast<uint64_t>(size));
  const int32_t stepRows = isPicked ? rowCount + 3 : rowCount;
  const auto residual = random.normals(int64_t{stepRows} * size, 3);
  const auto addend = random.bf16s(int64_t{stepRows} * size, 2);
  const auto weight = random.normals(size);
  std::vector<int32_t> picked;
  for (int32_t i = 0; i < rowCount; i++) picked.push_back(isPicked ? stepRows - 1 - i : i);
  const float epsilon = 1e-5f;

  auto residualArray = run.upload(residual);
  const auto addendArray = run.upload(addend);
  const auto weightArray = run.upload(weight);
  const auto pickedArray = run.upload(picked);
  const auto out = run.poisoned<Bf16>(int64_t{rowCount} * size);
  rmsNorm({residualArray.data(), hasAddend ? addendArray.data() : nullptr, weightArray.data(),
           isPicked ? pickedArray.data() : nullptr, out.data(), rowCount, size, epsilon},
          run.stream);
  const auto got = run.download(out);
  const auto sums = run.download(residualArray);

  const std::string name = "rmsNorm " + std::to_string(rowCount) + " x " + std::to_string(size);
  for (int32_t i = 0; i < rowCount; i++) {
    const int64_t row = picked[i];
    std::vector<double> x(size);
    double squares = 0;
    for (int32_t k = 0; k < size; k++) {
      x[k] = static_cast<double>(residual[row * size + k]) + (hasAddend ? toFloat(addend[row * size + k]) : 0.0f);
      squares += x[k] * x[k];
      run.near(name + " residual", sums[row * size + k], x[k], 1e-6, 1e-6);
    }
    const double factor = 1 / std::sqrt(squares / size + epsilon);
    for (int32_t k = 0; k < size; k++) run.near(name, toFloat(got[i * size + k]), weight[k] * x[k] * factor, 0.004, 1e-6);
  }
}

}  // namespace

void checkRmsNorm(CheckRun& run) {
  for (const int32_t size : {4, 96, 132, 576, 1032, 4096}) {
    for (const int32_t rowCount : {1, 3}) {
      checkOne(run, rowCount, size, false, false);
      checkOne(run, rowCount, size, true, rowCount == 3);
    }
  }
}

}  // namespace variator::cuda
