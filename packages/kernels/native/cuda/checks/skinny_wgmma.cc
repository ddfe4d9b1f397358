// skinnyWgmma against double precision: every variant with several splits of a depth that fills no tile, fused bias and
// residual; in float32 with an addend in place; that a row has the same bits alone and among others; and that the arrivals are
// zeros again.
#include "../skinny_wgmma.h"

#include <cmath>

#include "../float8_values.h"
#include "checks.h"

namespace variator::cuda {
namespace {

struct Operand {
  std::vector<Bf16> bf16;
  std::vector<uint8_t> e4m3;
  std::vector<float> scales;
  std::vector<double> values;
};

Operand draw(Random& random, bool isE4m3, int32_t rows, int32_t depth) {
  Operand all;
  const int64_t size = int64_t{rows} * depth;
  if (!isE4m3) {
    all.bf16 = random.bf16s(size);
    for (const Bf16 one : all.bf16) all.values.push_back(toFloat(one));
    return all;
  }
  for (int32_t i = 0; i < rows; i++) all.scales.push_back(static_cast<float>(0.01 + 0.02 * random.uniform()));
  for (int64_t i = 0; i < size; i++) {
    all.e4m3.push_back(toE4m3(random.normal() * 40));
    all.values.push_back(static_cast<double>(fromE4m3(all.e4m3.back())) * all.scales[i / depth]);
  }
  return all;
}

void checkVariant(CheckRun& run, const SkinnyVariant& v, int32_t columns, int32_t depth) {
  Random random(run.seed * 31 + static_cast<uint64_t>(v.mostRows * 7 + v.splits + v.tileM));
  const int32_t rows = v.mostRows - 3;
  const Operand activations = draw(random, v.isE4m3, rows, depth), weights = draw(random, v.isE4m3, columns, depth);
  const auto bias = random.normals(columns, 2);
  const auto residual = random.bf16s(int64_t{rows} * columns, 4);
  const auto w16 = run.upload(weights.bf16);
  const auto w8 = run.upload(weights.e4m3);
  const auto scaleW = run.upload(weights.scales), deviceBias = run.upload(bias);
  const auto arrivals = run.upload(std::vector<uint32_t>(static_cast<size_t>(skinnyTileCount(v, columns))));
  const std::string name = std::string("skinny ") + (v.isE4m3 ? "e4m3 " : "bf16 ") + std::to_string(v.tileM) + " n " + std::to_string(v.mostRows) +
                           " k " + std::to_string(v.tileK) + " splits " + std::to_string(v.splits);
  const auto runRows = [&](int32_t first, int32_t count) {
    const auto from = [&](const auto& values, int64_t width) {
      using Values = std::decay_t<decltype(values)>;
      return values.empty() ? Values{} : Values(values.begin() + first * width, values.begin() + (first + count) * width);
    };
    const auto a16 = run.upload(from(activations.bf16, depth));
    const auto a8 = run.upload(from(activations.e4m3, depth));
    const auto scaleA = run.upload(from(activations.scales, 1));
    const auto deviceResidual = run.upload(from(residual, columns));
    const auto out = run.poisoned<Bf16>(int64_t{count} * columns);
    const auto partials = run.poisoned<float>(skinnyPartialCount(v, columns) + 1);
    skinnyWgmma(v,
                {v.isE4m3 ? static_cast<const void*>(a8.data()) : a16.data(), v.isE4m3 ? static_cast<const void*>(w8.data()) : w16.data(), scaleA.data(),
                 scaleW.data(), deviceBias.data(), deviceResidual.data(), out.data(), nullptr, nullptr, partials.data(), arrivals.data(), count, columns, depth},
                run.stream);
    // The same in float32, where the residual is what the results are added to.
    std::vector<float> addend;
    for (const Bf16 one : from(residual, columns)) addend.push_back(toFloat(one));
    const auto floats = run.upload(addend);
    skinnyWgmma(v,
                {v.isE4m3 ? static_cast<const void*>(a8.data()) : a16.data(), v.isE4m3 ? static_cast<const void*>(w8.data()) : w16.data(), scaleA.data(),
                 scaleW.data(), deviceBias.data(), nullptr, nullptr, floats.data(), floats.data(), partials.data(), arrivals.data(), count, columns, depth},
                run.stream);
    std::vector<Bf16> rounded;
    for (const float one : run.download(floats)) rounded.push_back(toBf16(one));
    auto bf16 = run.download(out);
    run.sameBytes(name + ", in float32 and rounded", rounded, bf16);
    return bf16;
  };
  const auto got = runRows(0, rows);
  for (int32_t i = 0; i < rows; i++) {
    for (int32_t j = 0; j < columns; j++) {
      double want = static_cast<double>(bias[j]) + toFloat(residual[int64_t{i} * columns + j]);
      for (int32_t k = 0; k < depth; k++) want += activations.values[int64_t{i} * depth + k] * weights.values[int64_t{j} * depth + k];
      run.near(name, toFloat(got[int64_t{i} * columns + j]), want, 0.004, (v.isE4m3 ? 1e-3 : 2e-6) * std::sqrt(depth));
    }
  }
  const auto few = runRows(rows - 2, 2);
  run.sameBytes(name + ", few rows", few, std::vector<Bf16>(got.end() - 2 * columns, got.end()));
  for (const uint32_t left : run.download(arrivals)) run.same(name + " arrivals", left, 0);
}

}  // namespace

void checkSkinnyWgmma(CheckRun& run) {
  for (SkinnyVariant v : skinnyVariants()) {
    const int32_t depth = (v.isE4m3 ? 128 : 64) * 11 + 16;
    for (const int splits : {1, 3}) {
      v.splits = splits;
      checkVariant(run, v, v.tileM + 24, depth);
    }
  }
  // More parts than there are tiles along the depth: the last are empty.
  SkinnyVariant v = skinnyVariants().front();
  v.splits = 4;
  checkVariant(run, v, 64, 64 * 2);
}

}  // namespace variator::cuda
