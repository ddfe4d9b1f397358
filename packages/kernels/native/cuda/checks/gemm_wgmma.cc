// gemmWgmma against double precision: every variant, rows, columns and depth that fill no tile, fused bias and residual;
// and that a row's bits are the same alone and in a crowd.
#include "../gemm_wgmma.h"

#include <algorithm>
#include <cmath>

#include "../float8_values.h"
#include "checks.h"

namespace variator::cuda {
namespace {

struct Problem {
  int32_t rows, columns, depth;
  bool isFused;
};

std::string nameOf(const GemmVariant& v, const Problem& p) {
  const char* types[] = {"bf16", "e4m3", "e4m3 in blocks"};
  return std::string("gemm ") + types[static_cast<int>(v.type)] + " " + std::to_string(v.tileM) + "x" + std::to_string(v.tileN) + "/" +
         std::to_string(v.stages) + (v.clusterM > 1 ? " in pairs" : "") + " of " + std::to_string(p.rows) + " x " + std::to_string(p.columns) + " x " + std::to_string(p.depth);
}

struct Operands {
  std::vector<double> activations, weights;   // values, scales included
  std::vector<double> weightsMagnitude;
  std::vector<Bf16> bf16[2];
  std::vector<uint8_t> e4m3[2];
  std::vector<float> scales[2];
};

Operands draw(Random& random, const GemmVariant& v, const Problem& p) {
  Operands all;
  const int32_t counts[2] = {p.rows, p.columns};
  const auto blocks = static_cast<int32_t>(ceilDivide(p.depth, 128));
  for (int side = 0; side < 2; side++) {
    auto& values = side == 0 ? all.activations : all.weights;
    const int64_t size = int64_t{counts[side]} * p.depth;
    if (v.type == GemmType::bf16) {
      all.bf16[side] = random.bf16s(size);
      for (const Bf16 one : all.bf16[side]) values.push_back(toFloat(one));
      continue;
    }
    const int32_t perRow = v.type == GemmType::e4m3 ? 1 : blocks;
    const int64_t scaleRows = v.type == GemmType::e4m3Blocks && side == 1 ? ceilDivide(counts[side], 128) : counts[side];
    for (int64_t i = 0; i < scaleRows * perRow; i++) all.scales[side].push_back(static_cast<float>(0.01 + 0.02 * random.uniform()));
    for (int64_t i = 0; i < size; i++) {
      all.e4m3[side].push_back(toE4m3(random.normal() * 40));
      const int64_t row = i / p.depth, block = i % p.depth / 128;
      const int64_t scaleRow = v.type == GemmType::e4m3Blocks && side == 1 ? row / 128 : row;
      values.push_back(fromE4m3(all.e4m3[side].back()) * static_cast<double>(all.scales[side][scaleRow * perRow + (perRow == 1 ? 0 : block)]));
    }
  }
  return all;
}

template <typename Out>
float valueOf(Out value) {
  if constexpr (sizeof(Out) == 4) {
    return value;
  } else {
    return toFloat(value);
  }
}

/** Runs rows [first, first + count) of the problem and returns their output. */
template <typename Out>
std::vector<Out> runRows(CheckRun& run, const GemmVariant& v, const Problem& p, const Operands& all, const std::vector<float>& bias,
                         const std::vector<Bf16>& residual, int32_t first, int32_t count) {
  const auto slice = [&](const auto& values, int64_t width) {
    using Values = std::decay_t<decltype(values)>;
    return values.empty() ? Values{} : Values(values.begin() + first * width, values.begin() + (first + count) * width);
  };
  const int64_t scalesPerRow = v.type == GemmType::e4m3Blocks ? ceilDivide(p.depth, 128) : 1;
  const auto a16 = run.upload(slice(all.bf16[0], p.depth)), b16 = run.upload(all.bf16[1]);
  const auto a8 = run.upload(slice(all.e4m3[0], p.depth)), b8 = run.upload(all.e4m3[1]);
  const auto scaleA = run.upload(slice(all.scales[0], scalesPerRow)), scaleB = run.upload(all.scales[1]);
  const auto deviceBias = run.upload(bias);
  const auto deviceResidual = run.upload(slice(residual, p.columns));
  // A float output is added onto what stands in it.
  auto out = run.poisoned<Out>(int64_t{count} * p.columns);
  const float* addend = nullptr;
  if constexpr (sizeof(Out) == 4) {
    if (p.isFused) {
      out = run.upload(std::vector<float>(static_cast<size_t>(int64_t{count} * p.columns), 0.5f));
      addend = out.data();
    }
  }
  const bool isBf16 = v.type == GemmType::bf16;
  gemmWgmma(v,
            {isBf16 ? static_cast<const void*>(a16.data()) : a8.data(), isBf16 ? static_cast<const void*>(b16.data()) : b8.data(),
             scaleA.data(), scaleB.data(), deviceBias.data(), deviceResidual.data(), addend, out.data(), count, p.columns, p.depth},
            run.stream);
  return run.download(out);
}

template <typename Out>
void checkProblem(CheckRun& run, const GemmVariant& v, const Problem& p) {
  Random random(run.seed * 77 + static_cast<uint64_t>(p.rows * 3 + p.columns + v.tileN));
  const Operands all = draw(random, v, p);
  const auto bias = p.isFused ? random.normals(p.columns, 3) : std::vector<float>{};
  const auto residual = p.isFused ? random.bf16s(int64_t{p.rows} * p.columns, 5) : std::vector<Bf16>{};
  const auto got = runRows<Out>(run, v, p, all, bias, residual, 0, p.rows);
  const std::string name = nameOf(v, p);
  const double root = std::sqrt(static_cast<double>(p.depth));
  for (int32_t i = 0; i < p.rows; i++) {
    for (int32_t j = 0; j < p.columns; j++) {
      const double stood = p.isFused && sizeof(Out) == 4 ? 0.5 : 0;
      double want = stood + (p.isFused ? static_cast<double>(bias[j]) + toFloat(residual[int64_t{i} * p.columns + j]) : 0);
      for (int32_t k = 0; k < p.depth; k++) want += all.activations[int64_t{i} * p.depth + k] * all.weights[int64_t{j} * p.depth + k];
      // Rounding of the output, and of the sums: float32 of bf16 products, or what an e4m3 sum of 128 keeps.
      run.near(name + " at " + std::to_string(i) + ", " + std::to_string(j), valueOf(got[int64_t{i} * p.columns + j]), want, sizeof(Out) == 4 ? 1e-6 : 0.004, (v.type == GemmType::bf16 ? 2e-6 : 1e-3) * root);
    }
  }
  // One row by itself, and the last five.
  for (const int32_t count : {1, 5}) {
    if (count >= p.rows) continue;
    const int32_t first = p.rows - count;
    const auto few = runRows<Out>(run, v, p, all, bias, residual, first, count);
    run.sameBytes(name + ", few rows", few, std::vector<Out>(got.begin() + int64_t{first} * p.columns, got.end()));
  }
}

/** Experts' weights, one problem of rows for all; which rows are computed, and that no others are written. */
void checkExperts(CheckRun& run, const GemmVariant& v, bool isByCount) {
  Random random(run.seed * 13 + static_cast<uint64_t>(v.tileN + isByCount));
  constexpr int32_t experts = 3;
  const int32_t columns = v.type == GemmType::e4m3Blocks ? 128 : 136, depth = 2 * v.tileK + 16;
  const int32_t mostRows = 2 * v.tileM, rows = isByCount ? experts * mostRows : 3 * v.tileM + 5;
  const std::vector<int32_t> tileExperts{2, -1, 0, 2}, rowCounts{5, 0, v.tileM + 1};
  const Problem p{rows, experts * columns, depth, false};
  const Operands all = draw(random, v, p);
  const bool isBf16 = v.type == GemmType::bf16;
  const auto a16 = run.upload(all.bf16[0]), b16 = run.upload(all.bf16[1]);
  const auto a8 = run.upload(all.e4m3[0]), b8 = run.upload(all.e4m3[1]);
  const auto scaleA = run.upload(all.scales[0]), scaleB = run.upload(all.scales[1]);
  const auto tiles = run.upload(tileExperts), counts = run.upload(rowCounts);
  const auto out = run.poisoned<Bf16>(int64_t{rows} * columns);
  GemmArguments arguments{isBf16 ? static_cast<const void*>(a16.data()) : a8.data(), isBf16 ? static_cast<const void*>(b16.data()) : b8.data(),
                          scaleA.data(), scaleB.data(), nullptr, nullptr, nullptr, out.data(), rows, columns, depth, {}};
  arguments.groups = {isByCount ? nullptr : tiles.data(), isByCount ? counts.data() : nullptr, mostRows, experts};
  gemmWgmma(v, arguments, run.stream);
  const auto got = run.download(out);
  const std::string name = nameOf(v, p) + (isByCount ? ", experts by count" : ", experts by tile");
  for (int32_t i = 0; i < rows; i++) {
    const int32_t expert = isByCount ? i / mostRows : tileExperts[i / v.tileM];
    const int32_t within = isByCount ? i % mostRows : 0, used = isByCount ? rowCounts[expert] : 1;
    // A tile that is begun may be written to its end.
    if (within >= used && within < static_cast<int32_t>(ceilDivide(used, v.tileM)) * v.tileM) continue;
    for (int32_t j = 0; j < columns; j++) {
      const Bf16 value = got[int64_t{i} * columns + j];
      if (expert < 0 || within >= used) {
        run.same(name + ", a row of nobody", value.bits, 0xffff);
        continue;
      }
      double want = 0;
      for (int32_t k = 0; k < depth; k++) want += all.activations[int64_t{i} * depth + k] * all.weights[(int64_t{expert} * columns + j) * depth + k];
      run.near(name, toFloat(value), want, 0.004, (isBf16 ? 2e-6 : 1e-3) * std::sqrt(static_cast<double>(depth)));
    }
  }
}

}  // namespace

void checkGemmWgmma(CheckRun& run) {
  const auto check = [&](const GemmVariant& v, const Problem& p) {
    if (v.isFloatOut) {
      checkProblem<float>(run, v, p);
    } else {
      checkProblem<Bf16>(run, v, p);
    }
  };
  for (const GemmVariant& v : gemmVariants()) {
    const int32_t grain = v.type == GemmType::bf16 ? 8 : 16;
    check(v, {v.tileM + 9, v.tileN + 24, 5 * v.tileK + grain, true});
    check(v, {3, 40, v.tileK / 2, false});
  }
  for (const GemmVariant& v : gemmVariants()) {
    // More tiles than blocks, on the four multiprocessors of the emulated device.
    const bool isSmall = v.tileM * v.tileN <= 64 * 128 || v.clusterM > 1;
    if (isSmall || &v == &gemmVariants().front()) check(v, {(2 * v.clusterM + 1) * v.tileM - 60, 2 * v.tileN + 8, 2 * v.tileK, false});
    if (v.clusterM > 1 || v.isFloatOut || v.stages > 4) continue;
    for (const bool isByCount : {false, true}) checkExperts(run, v, isByCount);
  }
}

}  // namespace variator::cuda
