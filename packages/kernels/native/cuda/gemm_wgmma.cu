// See gemm_wgmma.h: which variants are compiled, and their launch. One row of the table is one kernel.
#include "gemm_wgmma.h"

#include <algorithm>
#include <string>

#include "../native_fault.h"
#include "gemm_wgmma.cuh"

namespace variator::cuda {
namespace {

using namespace hopper;

int multiprocessorCount() {
  static const int count = deviceInfo().multiprocessorCount;
  return count;
}

struct CompiledGemm {
  GemmVariant variant;
  void (*run)(const GemmArguments&, Stream);
};

template <GemmType type, int tileM, int tileN, int stages, int clusterM, typename Out>
void runGemm(const GemmArguments& of, Stream stream) {
  using Shape = GemmShape<type, tileM, tileN, stages, clusterM, Out>;
  constexpr ElementType in = type == GemmType::bf16 ? ElementType::bf16 : ElementType::e4m3;
  const int64_t depthBytes = int64_t{of.depth} * bytesOf(in);
  const GemmLaunch arguments{
      encodeTensorMap({of.activations, in, of.depth, of.rows, depthBytes, Shape::tileK, tileM}),
      encodeTensorMap({of.weights, in, of.depth, int64_t{of.columns} * std::max(of.groups.experts, 1), depthBytes, Shape::tileK, tileN / clusterM}),
      encodeTensorMap({of.out, sizeof(Out) == 4 ? ElementType::f32 : ElementType::bf16, of.columns, of.rows,
                       int64_t{of.columns} * static_cast<int64_t>(sizeof(Out)), Shape::chunkColumns, 64}),
      of};
  const int64_t clusters = ceilDivide(of.rows, tileM * clusterM) * ceilDivide(of.columns, tileN);
  LaunchShape shape{{static_cast<uint32_t>(clusterM * std::min<int64_t>(clusters, multiprocessorCount() / clusterM))}, {gemmThreads}, Shape::sharedBytes};
  shape.cluster = {clusterM};
  shape.overlapsBefore = true;
  launch("gemmWgmma", gemmKernel<type, tileM, tileN, stages, clusterM, Out>, shape, stream, arguments);
}

template <GemmType type, int tileM, int tileN, int stages, int clusterM, typename Out>
CompiledGemm compiled() {
  return {{type, tileM, tileN, GemmShape<type, tileM, tileN, stages, clusterM, Out>::tileK, stages, clusterM, sizeof(Out) == 4},
          runGemm<type, tileM, tileN, stages, clusterM, Out>};
}

const std::vector<CompiledGemm>& compiledGemms() {
  static const std::vector<CompiledGemm> all = {
      compiled<GemmType::bf16, 128, 128, 4, 1, Bf16>(),  compiled<GemmType::bf16, 128, 128, 6, 1, Bf16>(),
      compiled<GemmType::bf16, 128, 256, 4, 1, Bf16>(),  compiled<GemmType::bf16, 64, 256, 4, 1, Bf16>(),
      compiled<GemmType::bf16, 64, 128, 6, 1, Bf16>(),   compiled<GemmType::bf16, 128, 128, 4, 1, float>(),
      compiled<GemmType::bf16, 128, 256, 4, 1, float>(), compiled<GemmType::bf16, 128, 256, 4, 2, Bf16>(),
      compiled<GemmType::bf16, 128, 128, 6, 2, Bf16>(),  compiled<GemmType::e4m3, 128, 128, 4, 1, Bf16>(),
      compiled<GemmType::e4m3, 64, 256, 4, 1, Bf16>(),   compiled<GemmType::e4m3, 128, 128, 6, 2, Bf16>(),
      compiled<GemmType::e4m3, 128, 128, 4, 1, float>(),
      compiled<GemmType::e4m3Blocks, 128, 128, 4, 1, Bf16>(), compiled<GemmType::e4m3Blocks, 64, 256, 4, 1, Bf16>(),
  };
  return all;
}

bool isSame(const GemmVariant& a, const GemmVariant& b) {
  return a.type == b.type && a.tileM == b.tileM && a.tileN == b.tileN && a.tileK == b.tileK && a.stages == b.stages && a.clusterM == b.clusterM &&
         a.isFloatOut == b.isFloatOut;
}

void refuseWhere(bool isWrong, const char* why) {
  if (isWrong) throw NativeFault(std::string("gemmWgmma: ") + why);
}

}  // namespace

const std::vector<GemmVariant>& gemmVariants() {
  static const auto all = [] {
    std::vector<GemmVariant> variants;
    for (const CompiledGemm& one : compiledGemms()) variants.push_back(one.variant);
    return variants;
  }();
  return all;
}

void gemmWgmma(const GemmVariant& variant, const GemmArguments& of, Stream stream) {
  refuseWhere(of.rows < 1 || of.columns < 1 || of.depth < 1, "an empty matrix");
  refuseWhere(of.columns % 8 != 0, "columns must be a multiple of 8");
  refuseWhere(of.depth % (variant.type == GemmType::bf16 ? 8 : 16) != 0, "depth must be a multiple of 16 bytes");
  refuseWhere((variant.type != GemmType::bf16) != (of.activationScales != nullptr && of.weightScales != nullptr), "scales belong to e4m3");
  const GemmGroups& groups = of.groups;
  refuseWhere(groups.experts > 0 && variant.clusterM > 1, "blocks of a cluster share their weights: no experts");
  refuseWhere(groups.experts > 0 && (groups.tileExperts != nullptr) == (groups.rowCounts != nullptr), "experts need tileExperts or rowCounts");
  refuseWhere(groups.rowCounts != nullptr && (groups.mostRows < 1 || groups.mostRows % variant.tileM != 0), "mostRows must be a multiple of tileM");
  refuseWhere(groups.experts > 0 && variant.type == GemmType::e4m3Blocks && of.columns % 128 != 0, "blocks of weights may not span experts");
  for (const CompiledGemm& one : compiledGemms()) {
    if (!isSame(one.variant, variant)) continue;
    one.run(of, stream);
    return;
  }
  throw NativeFault("gemmWgmma: this variant is not compiled");
}

}  // namespace variator::cuda
