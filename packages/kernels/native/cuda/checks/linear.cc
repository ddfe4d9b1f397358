// linearByMma in every tile and linearByGemv in every shape against double precision, at sizes that fill no tile; and that
// a row's bits are the same alone and in a crowd, in every tile and in every shape.
#include "../linear.h"

#include <cmath>

#include "checks.h"

namespace variator::cuda {
namespace {

struct Problem {
  int32_t rowCount, rows, columns;
  std::vector<Bf16> x, weight;
  DeviceArray<Bf16> xArray, weightArray;
  std::vector<double> want, sizes;  // [rowCount, rows] the sum, and the sum of its terms' sizes
};

Problem problemOf(CheckRun& run, int32_t rowCount, int32_t rows, int32_t columns) {
  Random random(run.seed + static_cast<uint64_t>(rows));
  Problem p{rowCount, rows, columns, random.bf16s(int64_t{rowCount} * columns), random.bf16s(int64_t{rows} * columns), {}, {}, {}, {}};
  p.xArray = run.upload(p.x);
  p.weightArray = run.upload(p.weight);
  for (int64_t m = 0; m < rowCount; m++) {
    for (int64_t r = 0; r < rows; r++) {
      double sum = 0, size = 0;
      for (int64_t k = 0; k < columns; k++) {
        const double term = static_cast<double>(toFloat(p.x[m * columns + k])) * toFloat(p.weight[r * columns + k]);
        sum += term;
        size += std::abs(term);
      }
      p.want.push_back(sum);
      p.sizes.push_back(size);
    }
  }
  return p;
}

template <typename Multiply>
void checkTakes(CheckRun& run, const Problem& p, const std::string& name, const Multiply& multiply) {
  const int64_t count = int64_t{p.rowCount} * p.rows;
  Random random(run.seed + 9);
  const auto before = random.normals(count, 4);
  const LinearArguments a{p.xArray.data(), p.weightArray.data(), nullptr, Take::AsBf16, p.rowCount, p.rows, p.columns};
  const auto halves = run.poisoned<Bf16>(count);
  const auto floats = run.poisoned<float>(count);
  const auto sums = run.upload(before);
  auto one = a;
  one.out = halves.data();
  multiply(one);
  one.take = Take::AsFloat;
  one.out = floats.data();
  multiply(one);
  one.take = Take::AddToResidual;
  one.out = sums.data();
  multiply(one);
  const auto gotHalves = run.download(halves);
  const auto gotFloats = run.download(floats), gotSums = run.download(sums);
  std::vector<Bf16> rounded;
  for (int64_t i = 0; i < count; i++) {
    // float32 sums of k terms: the error is a small share of the terms' sizes.
    run.near(name, gotFloats[i], p.want[i], 0, 2e-6 * p.sizes[i] + 1e-30);
    run.near(name + " added", gotSums[i], p.want[i] + before[i], 1e-6, 2e-6 * p.sizes[i] + 1e-6);
    rounded.push_back(toBf16(gotFloats[i]));
  }
  run.sameBytes(name + " as bf16", gotHalves, rounded);
}

template <typename Multiply>
std::vector<float> sumsOf(CheckRun& run, const Problem& p, int32_t firstRow, int32_t rowCount, const Multiply& multiply) {
  const auto out = run.poisoned<float>(int64_t{rowCount} * p.rows);
  multiply(LinearArguments{p.xArray.data() + int64_t{firstRow} * p.columns, p.weightArray.data(), out.data(), Take::AsFloat, rowCount, p.rows, p.columns});
  return run.download(out);
}

}  // namespace

void checkLinear(CheckRun& run) {
  const struct {
    int32_t rowCount, rows, columns;
  } sizes[] = {{1, 96, 96}, {3, 70, 264}, {8, 33, 72}, {17, 130, 136}};
  for (const auto& [rowCount, rows, columns] : sizes) {
    const Problem p = problemOf(run, rowCount, rows, columns);
    const std::string size = std::to_string(rowCount) + " x " + std::to_string(rows) + " x " + std::to_string(columns);
    for (int32_t tile = 1; tile <= mmaTileCount(); tile++) {
      checkTakes(run, p, "mma tile " + std::to_string(tile) + ", " + size, [&](const LinearArguments& a) { linearByMma(a, tile, run.stream); });
    }
    if (rowCount > mostGemvRows) continue;
    for (const int32_t rowsPerWarp : {1, 2, 4}) {
      for (const int32_t loads : {4, 8}) {
        checkTakes(run, p, "gemv " + std::to_string(rowsPerWarp) + "/" + std::to_string(loads) + ", " + size,
                   [&](const LinearArguments& a) { linearByGemv(a, {rowsPerWarp, loads}, run.stream); });
      }
    }
  }
  const Problem p = problemOf(run, 8, 72, 200);
  const auto crowd = sumsOf(run, p, 0, 8, [&](const LinearArguments& a) { linearByMma(a, 8, run.stream); });
  const auto gemvCrowd = sumsOf(run, p, 0, 8, [&](const LinearArguments& a) { linearByGemv(a, {4, 8}, run.stream); });
  for (int32_t row = 0; row < 8; row += 3) {
    const auto rowOf = [&](const std::vector<float>& all) { return std::vector<float>(all.begin() + row * 72, all.begin() + (row + 1) * 72); };
    for (int32_t tile = 1; tile <= mmaTileCount(); tile++) {
      run.sameBytes("mma: a row alone in tile " + std::to_string(tile) + " and in a crowd",
                    sumsOf(run, p, row, 1, [&](const LinearArguments& a) { linearByMma(a, tile, run.stream); }), rowOf(crowd));
    }
    run.sameBytes("gemv: a row alone and in a crowd", sumsOf(run, p, row, 1, [&](const LinearArguments& a) { linearByGemv(a, {1, 4}, run.stream); }),
                  rowOf(gemvCrowd));
  }
}

}  // namespace variator::cuda
