// See skinny_wgmma.h: which variants are compiled, and their launch.
#include "skinny_wgmma.h"

#include <string>

#include "../native_fault.h"
#include "skinny_wgmma.cuh"

namespace variator::cuda {
namespace {

using namespace hopper;

struct CompiledSkinny {
  SkinnyVariant variant;
  void (*run)(const SkinnyArguments&, int splits, Stream);
};

template <bool isE4m3, int tileM, int n, int tileK, int stages>
void runSkinny(const SkinnyArguments& of, int splits, Stream stream) {
  using Shape = SkinnyShape<isE4m3, tileM, n, tileK, stages>;
  constexpr ElementType type = isE4m3 ? ElementType::e4m3 : ElementType::bf16;
  const int64_t depthBytes = int64_t{of.depth} * bytesOf(type);
  constexpr int box = isE4m3 ? 128 : 64;
  const SkinnyLaunch arguments{encodeTensorMap({of.weights, type, of.depth, of.columns, depthBytes, box, tileM}),
                               encodeTensorMap({of.activations, type, of.depth, of.rows, depthBytes, box, n}), of, splits};
  LaunchShape shape{{static_cast<uint32_t>(ceilDivide(of.columns, tileM)), static_cast<uint32_t>(splits)}, {Shape::threads}, Shape::sharedBytes};
  shape.overlapsBefore = true;
  launch("skinnyWgmma", skinnyKernel<isE4m3, tileM, n, tileK, stages>, shape, stream, arguments);
}

template <bool isE4m3, int tileM, int n, int tileK, int stages>
CompiledSkinny compiled() {
  return {{isE4m3, tileM, n, tileK, stages, 1}, runSkinny<isE4m3, tileM, n, tileK, stages>};
}

const std::vector<CompiledSkinny>& compiledSkinnies() {
  static const std::vector<CompiledSkinny> all = {
      compiled<false, 64, 8, 1, 8>(),  compiled<false, 64, 16, 1, 8>(),  compiled<false, 64, 24, 1, 8>(),
      compiled<false, 64, 32, 1, 8>(), compiled<false, 64, 48, 1, 6>(),  compiled<false, 64, 64, 1, 6>(),
      compiled<false, 64, 16, 2, 4>(), compiled<false, 128, 16, 1, 6>(), compiled<false, 128, 32, 1, 4>(),
      compiled<false, 128, 64, 1, 6>(), compiled<true, 64, 8, 1, 8>(),   compiled<true, 64, 16, 1, 8>(),
      compiled<true, 64, 32, 1, 8>(),  compiled<true, 64, 64, 1, 6>(),
  };
  return all;
}

void refuseWhere(bool isWrong, const char* why) {
  if (isWrong) throw NativeFault(std::string("skinnyWgmma: ") + why);
}

}  // namespace

const std::vector<SkinnyVariant>& skinnyVariants() {
  static const auto all = [] {
    std::vector<SkinnyVariant> variants;
    for (const CompiledSkinny& one : compiledSkinnies()) variants.push_back(one.variant);
    return variants;
  }();
  return all;
}

int64_t skinnyTileCount(const SkinnyVariant& variant, int32_t columns) { return ceilDivide(columns, variant.tileM); }
int64_t skinnyPartialCount(const SkinnyVariant& variant, int32_t columns) {
  return variant.splits == 1 ? 0 : skinnyTileCount(variant, columns) * variant.splits * variant.mostRows * variant.tileM;
}

void skinnyWgmma(const SkinnyVariant& v, const SkinnyArguments& of, Stream stream) {
  refuseWhere(of.rows < 1 || of.columns < 1 || of.depth < 1, "an empty matrix");
  refuseWhere(of.rows > v.mostRows, "more rows than the variant holds");
  refuseWhere(of.columns % 8 != 0, "columns must be a multiple of 8");
  refuseWhere(of.depth % (v.isE4m3 ? 16 : 8) != 0, "depth must be a multiple of 16 bytes");
  refuseWhere(v.isE4m3 != (of.activationScales != nullptr && of.weightScales != nullptr), "scales belong to e4m3");
  refuseWhere((of.out != nullptr) == (of.floatOut != nullptr), "one of the two kinds of results");
  refuseWhere(of.addend != nullptr && of.floatOut == nullptr, "a float32 addend needs float32 results");
  refuseWhere(v.splits < 1 || (v.splits > 1 && (of.partials == nullptr || of.arrivals == nullptr)), "splits need room for their sums");
  for (const CompiledSkinny& one : compiledSkinnies()) {
    const SkinnyVariant& c = one.variant;
    if (c.isE4m3 != v.isE4m3 || c.tileM != v.tileM || c.mostRows != v.mostRows || c.tileK != v.tileK || c.stages != v.stages) continue;
    one.run(of, v.splits, stream);
    return;
  }
  throw NativeFault("skinnyWgmma: this variant is not compiled");
}

}  // namespace variator::cuda
