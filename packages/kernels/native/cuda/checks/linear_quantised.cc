// Products with matrices in 8 and 4 bits, by GEMV and by mma, against double precision over the numbers that the codes stand
// for; the kernels that make codes against the host's; every code of e4m3 by itself; a row's bits alone and in a crowd.
#include <array>
#include <cmath>

#include "../linear_quantised.h"
#include "checks.h"

namespace variator::cuda {
namespace {

struct Problem {
  int32_t rowCount, rows, columns;
  std::vector<Bf16> x;
  DeviceArray<Bf16> xArray;
};

// `multiply(arguments, parameter)`: by each of `parameters` the same bits, near what double precision says.
template <typename Multiply>
void checkOne(CheckRun& run, const std::string& name, const Problem& p, const std::vector<float>& values, const std::vector<int32_t>& parameters, const Multiply& multiply) {
  const int64_t count = int64_t{p.rowCount} * p.rows;
  std::vector<float> first;
  for (const int32_t parameter : parameters) {
    const auto out = run.poisoned<float>(count);
    multiply(LinearArguments{p.xArray.data(), nullptr, out.data(), Take::AsFloat, p.rowCount, p.rows, p.columns}, parameter);
    const auto got = run.download(out);
    if (!first.empty()) {
      run.sameBytes(name + " by " + std::to_string(parameter), got, first);
      continue;
    }
    first = got;
    for (int64_t m = 0; m < p.rowCount; m++) {
      for (int64_t r = 0; r < p.rows; r++) {
        double want = 0, size = 0;
        for (int64_t k = 0; k < p.columns; k++) {
          const double term = static_cast<double>(toFloat(p.x[m * p.columns + k])) * values[r * p.columns + k];
          want += term;
          size += std::abs(term);
        }
        run.near(name, got[m * p.rows + r], want, 0, 2e-6 * size + 1e-30);
      }
    }
  }
  const int32_t row = p.rowCount - 1;
  const auto alone = run.poisoned<float>(p.rows);
  multiply(LinearArguments{p.xArray.data() + int64_t{row} * p.columns, nullptr, alone.data(), Take::AsFloat, 1, p.rows, p.columns}, parameters.back());
  run.sameBytes(name + ": a row alone and in a crowd", run.download(alone), std::vector<float>(first.begin() + int64_t{row} * p.rows, first.end()));
  // Rounded, and onto what is there.
  const auto halves = run.poisoned<Bf16>(count);
  const std::vector<float> before = Random(run.seed + 7).normals(count);
  const auto added = run.upload(before);
  multiply(LinearArguments{p.xArray.data(), nullptr, halves.data(), Take::AsBf16, p.rowCount, p.rows, p.columns}, parameters[0]);
  multiply(LinearArguments{p.xArray.data(), nullptr, added.data(), Take::AddToResidual, p.rowCount, p.rows, p.columns}, parameters[0]);
  std::vector<Bf16> rounded;
  std::vector<float> sums;
  for (int64_t i = 0; i < count; i++) {
    rounded.push_back(toBf16(first[i]));
    sums.push_back(before[i] + first[i]);
  }
  run.sameBytes(name + " as bf16", run.download(halves), rounded);
  run.sameBytes(name + " added", run.download(added), sums);
}

template <typename Matrix>
void checkFormat(CheckRun& run, const std::string& format, const Problem& p, const Matrix& matrix, const std::vector<float>& values) {
  if (p.rowCount <= mostGemvRows) {
    checkOne(run, "gemv of " + format, p, values, {1, 2}, [&](const LinearArguments& a, int32_t rowsPerWarp) { linearByGemv(a, matrix, rowsPerWarp, run.stream); });
  }
  std::vector<int32_t> tiles;
  for (int32_t tile = 1; tile <= mmaTileCount(); tile++) tiles.push_back(tile);
  checkOne(run, "mma of " + format, p, values, tiles, [&](const LinearArguments& a, int32_t tile) { linearByMma(a, matrix, tile, run.stream); });
}

// Every code but the two that are no numbers, picked out by a unit vector.
void checkEveryCode(CheckRun& run) {
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
  const auto want = valuesOf(all, 254, 16);
  for (const bool isMma : {false, true}) {
    const auto out = run.poisoned<float>(254);
    const LinearArguments arguments{unitArray.data(), nullptr, out.data(), Take::AsFloat, 1, 254, 16};
    const Fp8Matrix matrix{codeArray.data(), scaleArray.data()};
    if (isMma) linearByMma(arguments, matrix, 1, run.stream);
    else linearByGemv(arguments, matrix, 1, run.stream);
    const auto got = run.download(out);
    for (int32_t row = 0; row < 254; row++) run.near("e4m3 code", got[row], want[row * 16], 0, 0);
  }
}

}  // namespace

void checkLinearQuantised(CheckRun& run) {
  Random random(run.seed);
  for (const auto& [rowCount, rows, columns] : {std::array{1, 33, 96}, {3, 18, 384}, {8, 7, 4384}, {19, 70, 160}}) {
    auto weight = random.bf16s(int64_t{rows} * columns, 0.3f);
    // A row of zeros has a scale, too.
    for (int32_t k = 0; k < columns; k++) weight[k] = toBf16(0);
    std::vector<float> floats;
    for (const Bf16 one : weight) floats.push_back(toFloat(one));
    Problem p{rowCount, rows, columns, random.bf16s(int64_t{rowCount} * columns), {}};
    p.xArray = run.upload(p.x);
    const auto weightArray = run.upload(weight);

    const auto fp8 = roundToFp8(floats, rows, columns);
    const auto fp8Codes = run.poisoned<uint8_t>(int64_t{rows} * columns);
    const auto fp8Scales = run.poisoned<float>(rows);
    quantiseToFp8(weightArray.data(), rows, columns, fp8Codes.data(), fp8Scales.data(), run.stream);
    run.sameBytes("codes of e4m3", run.download(fp8Codes), fp8.codes);
    run.sameBytes("scales of e4m3", run.download(fp8Scales), fp8.scales);
    const auto fp8Values = valuesOf(fp8, rows, columns);
    checkFormat(run, "e4m3", p, Fp8Matrix{fp8Codes.data(), fp8Scales.data()}, fp8Values);

    const auto int4 = roundToInt4(floats, rows, columns);
    const auto int4Codes = run.poisoned<uint32_t>(int64_t{rows} * columns / 8);
    const auto int4Scales = run.poisoned<float>(int64_t{rows} * int4GroupsOf(columns));
    quantiseToInt4(weightArray.data(), rows, columns, int4Codes.data(), int4Scales.data(), run.stream);
    run.sameBytes("codes of 4 bits", run.download(int4Codes), int4.codes);
    run.sameBytes("scales of 4 bits", run.download(int4Scales), int4.scales);
    const auto int4Values = valuesOf(int4, rows, columns);
    checkFormat(run, "4 bits", p, Int4Matrix{int4Codes.data(), int4Scales.data()}, int4Values);

    // Rounding itself: half a step at most.
    for (size_t i = 0; i < floats.size(); i++) {
      const int64_t row = static_cast<int64_t>(i) / columns, column = static_cast<int64_t>(i) % columns;
      run.near("e4m3", fp8Values[i], floats[i], 1.0 / 16, fp8.scales[row] * 0x1p-10);
      run.near("4 bits", int4Values[i], floats[i], 0, int4.scales[row * int4GroupsOf(columns) + column / int4GroupColumns] * 0.5001);
    }
  }
  checkEveryCode(run);
}

}  // namespace variator::cuda
