// The 8 and 4 bit GEMVs against double precision over the numbers that the codes stand for; and every code of e4m3 by itself.
#include <array>
#include <cmath>

#include "../linear_quantised.h"
#include "checks.h"

namespace variator::cuda {
namespace {

template <typename Multiply>
void checkOne(CheckRun& run, const std::string& name, const std::vector<Bf16>& x, const std::vector<float>& values, int32_t rowCount, int32_t rows, int32_t columns,
              const Multiply& multiply) {
  const auto xArray = run.upload(x);
  std::vector<float> alone;
  for (const int32_t rowsPerWarp : {1, 2}) {
    const auto out = run.poisoned<float>(int64_t{rowCount} * rows);
    multiply(LinearArguments{xArray.data(), nullptr, out.data(), Take::AsFloat, rowCount, rows, columns}, rowsPerWarp);
    const auto got = run.download(out);
    for (int64_t m = 0; m < rowCount; m++) {
      for (int64_t r = 0; r < rows; r++) {
        double want = 0, size = 0;
        for (int64_t k = 0; k < columns; k++) {
          const double term = static_cast<double>(toFloat(x[m * columns + k])) * values[r * columns + k];
          want += term;
          size += std::abs(term);
        }
        run.near(name, got[m * rows + r], want, 0, 2e-6 * size + 1e-30);
      }
    }
    const auto single = run.poisoned<float>(rows);
    multiply(LinearArguments{xArray.data(), nullptr, single.data(), Take::AsFloat, 1, rows, columns}, 3 - rowsPerWarp);
    run.sameBytes(name + ": a row alone and in a crowd", run.download(single), std::vector<float>(got.begin(), got.begin() + rows));
  }
}

}  // namespace

void checkLinearQuantised(CheckRun& run) {
  Random random(run.seed);
  for (const auto& [rowCount, rows, columns] : {std::array{1, 33, 128}, {3, 18, 384}, {8, 7, 4352}}) {
    const auto weight = random.normals(int64_t{rows} * columns, 0.3f);
    const auto x = random.bf16s(int64_t{rowCount} * columns);
    const auto fp8 = roundToFp8(weight, rows, columns);
    const auto fp8Codes = run.upload(fp8.codes);
    const auto fp8Scales = run.upload(fp8.scales);
    checkOne(run, "gemv of e4m3", x, valuesOf(fp8, rows, columns), rowCount, rows, columns,
             [&](const LinearArguments& a, int32_t perWarp) { linearByGemv(a, Fp8Matrix{fp8Codes.data(), fp8Scales.data()}, perWarp, run.stream); });
    const auto int4 = roundToInt4(weight, rows, columns);
    const auto int4Codes = run.upload(int4.codes);
    const auto int4Scales = run.upload(int4.scales);
    checkOne(run, "gemv of 4 bits", x, valuesOf(int4, rows, columns), rowCount, rows, columns,
             [&](const LinearArguments& a, int32_t perWarp) { linearByGemv(a, Int4Matrix{int4Codes.data(), int4Scales.data()}, perWarp, run.stream); });
    // Rounding itself: half a step at most.
    const auto fp8Values = valuesOf(fp8, rows, columns), int4Values = valuesOf(int4, rows, columns);
    for (size_t i = 0; i < weight.size(); i++) {
      run.near("e4m3", fp8Values[i], weight[i], 1.0 / 16, fp8.scales[i / columns] * 0x1p-10);
      run.near("4 bits", int4Values[i], weight[i], 0, int4.scales[i / int4GroupColumns] * 0.5001);
    }
  }
  // Every code but the two that are no numbers, picked out by a unit vector.
  std::vector<uint8_t> codes;
  for (int32_t row = 0; row < 254; row++) {
    for (int32_t k = 0; k < 16; k++) codes.push_back(static_cast<uint8_t>(row < 127 ? row : row + 1));
  }
  const Fp8Codes all{codes, std::vector<float>(254, 1)};
  const auto codeArray = run.upload(all.codes);
  const auto scaleArray = run.upload(all.scales);
  std::vector<Bf16> unit(16, toBf16(0));
  unit[run.seed % 16] = toBf16(1);
  const auto unitArray = run.upload(unit);
  const auto out = run.poisoned<float>(254);
  linearByGemv(LinearArguments{unitArray.data(), nullptr, out.data(), Take::AsFloat, 1, 254, 16}, Fp8Matrix{codeArray.data(), scaleArray.data()}, 1, run.stream);
  const auto got = run.download(out), want = valuesOf(all, 254, 16);
  for (int32_t row = 0; row < 254; row++) run.near("e4m3 code", got[row], want[row * 16], 0, 0);
}

}  // namespace variator::cuda
