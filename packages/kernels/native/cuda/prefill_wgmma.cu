// See prefill_wgmma.h: which variants are compiled, and their launch.
#include "prefill_wgmma.h"

#include <string>

#include "../native_fault.h"
#include "prefill_wgmma.cuh"

namespace variator::cuda {
namespace {

using namespace hopper;

struct CompiledPrefill {
  PrefillVariant variant;
  void (*run)(const PrefillLaunch&, Stream);
};

template <int headSize, int stages, bool takesTurns>
void runPrefill(const PrefillLaunch& arguments, Stream stream) {
  LaunchShape shape{{static_cast<uint32_t>(arguments.of.itemCount), static_cast<uint32_t>(arguments.of.kvHeadCount)},
                    {prefillThreads},
                    PrefillShape<headSize, stages>::sharedBytes};
  shape.overlapsBefore = true;
  launch("prefillWgmma", prefillKernel<headSize, stages, takesTurns>, shape, stream, arguments);
}

template <int headSize, int stages, bool takesTurns>
CompiledPrefill compiled() {
  return {{headSize, stages, takesTurns}, runPrefill<headSize, stages, takesTurns>};
}

const std::vector<CompiledPrefill>& compiledPrefills() {
  static const std::vector<CompiledPrefill> all = {compiled<64, 2, false>(), compiled<64, 4, true>(), compiled<128, 2, false>(),
                                                    compiled<128, 2, true>(), compiled<128, 3, false>()};
  return all;
}

void refuseWhere(bool isWrong, const char* why) {
  if (isWrong) throw NativeFault(std::string("prefillByWgmma: ") + why);
}

}  // namespace

const std::vector<PrefillVariant>& prefillVariants() {
  static const auto all = [] {
    std::vector<PrefillVariant> variants;
    for (const CompiledPrefill& one : compiledPrefills()) variants.push_back(one.variant);
    return variants;
  }();
  return all;
}

int32_t prefillPairsPerItem(int32_t headCount, int32_t kvHeadCount) {
  const int32_t group = headCount / kvHeadCount;
  return prefillTile / group * group;
}

void prefillByWgmma(const PrefillVariant& variant, const AttentionArguments& a, int32_t tokenCount, int32_t kvBlockCount, Stream stream) {
  refuseWhere(a.headCount < 1 || a.kvHeadCount < 1 || a.headCount % a.kvHeadCount != 0, "heads must be a multiple of KV heads");
  const int32_t group = a.headCount / a.kvHeadCount;
  refuseWhere(group > prefillTile, "more than 128 heads to a KV head");
  refuseWhere(a.headSize != variant.headSize, "the variant is for another head size");
  refuseWhere(a.itemCount < 1 || tokenCount < 1 || kvBlockCount < 1, "nothing to attend to");
  const int64_t kvRows = int64_t{kvBlockCount} * a.kvHeadCount * kvBlockTokens, headBytes = int64_t{2} * a.headSize;
  refuseWhere(kvRows >= int64_t{1} << 31, "a cache of 2^31 rows and more");
  PrefillLaunch arguments{};
  arguments.of = a;
  arguments.group = group;
  arguments.itemTokens = prefillTile / group;
  arguments.outsideRow = static_cast<int32_t>(kvRows);
  arguments.queries = encodeTensorMap({a.queries, ElementType::bf16, a.headSize, a.headCount, headBytes, 64, group, tokenCount,
                                       int64_t{2} * a.queryStride, arguments.itemTokens});
  arguments.keys = encodeTensorMap({a.kv.keys, ElementType::bf16, a.headSize, kvRows, headBytes, 64, kvBlockTokens});
  arguments.values = encodeTensorMap({a.kv.values, ElementType::bf16, a.headSize, kvRows, headBytes, 64, kvBlockTokens});
  for (const CompiledPrefill& one : compiledPrefills()) {
    if (one.variant.headSize != variant.headSize || one.variant.stages != variant.stages || one.variant.takesTurns != variant.takesTurns) continue;
    one.run(arguments, stream);
    return;
  }
  throw NativeFault("prefillByWgmma: this variant is not compiled");
}

}  // namespace variator::cuda
