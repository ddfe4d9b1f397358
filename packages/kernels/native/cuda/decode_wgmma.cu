// See decode_wgmma.h: which variants are compiled, and their launch.
#include "decode_wgmma.h"

#include <algorithm>
#include <string>

#include "../native_fault.h"
#include "decode_wgmma.cuh"

namespace variator::cuda {
namespace {

using namespace hopper;

struct CompiledDecode {
  DecodeVariant variant;
  int partStride;
  void (*run)(const DecodeLaunch&, Stream);
};

template <int headSize, int n, int stages>
void runDecode(const DecodeLaunch& arguments, Stream stream) {
  LaunchShape shape{{static_cast<uint32_t>(arguments.of.itemCount), static_cast<uint32_t>(arguments.of.kvHeadCount),
                     static_cast<uint32_t>(arguments.workers)},
                    {decodeThreads},
                    DecodeShape<headSize, n, stages>::sharedBytes};
  shape.overlapsBefore = true;
  launch("decodeWgmma", decodeKernel<headSize, n, stages>, shape, stream, arguments);
}

template <int headSize, int n, int stages>
CompiledDecode compiled() {
  return {{headSize, n, stages}, DecodeShape<headSize, n, stages>::partStride, runDecode<headSize, n, stages>};
}

const std::vector<CompiledDecode>& compiledDecodes() {
  static const std::vector<CompiledDecode> all = {compiled<64, 8, 4>(),  compiled<64, 16, 4>(), compiled<128, 8, 2>(),
                                                  compiled<128, 8, 3>(), compiled<128, 16, 3>()};
  return all;
}

void refuseWhere(bool isWrong, const char* why) {
  if (isWrong) throw NativeFault(std::string("decodeByWgmma: ") + why);
}

const CompiledDecode& compiledAs(const DecodeVariant& v) {
  for (const CompiledDecode& one : compiledDecodes()) {
    if (one.variant.headSize == v.headSize && one.variant.mostPairs == v.mostPairs && one.variant.stages == v.stages) return one;
  }
  throw NativeFault("decodeByWgmma: this variant is not compiled");
}

int32_t splitsOf(const AttentionArguments& a, int32_t mostTokens) {
  // A window of w tokens lies in one more split than it fills.
  const int64_t all = ceilDivide(mostTokens, a.splitTokens);
  return static_cast<int32_t>(a.windowTokens > 0 ? std::min(all, ceilDivide(a.windowTokens, a.splitTokens) + 2) : all);
}

}  // namespace

const std::vector<DecodeVariant>& decodeVariants() {
  static const auto all = [] {
    std::vector<DecodeVariant> variants;
    for (const CompiledDecode& one : compiledDecodes()) variants.push_back(one.variant);
    return variants;
  }();
  return all;
}

int32_t decodePairsPerItem(const DecodeVariant& variant, int32_t headCount, int32_t kvHeadCount) {
  const int32_t group = headCount / kvHeadCount;
  return variant.mostPairs / group * group;
}

int64_t decodePartStride(const DecodeVariant& variant) { return compiledAs(variant).partStride; }

int64_t decodePartialCount(const DecodeVariant& variant, const AttentionArguments& a, int32_t mostTokens) {
  return int64_t{a.itemCount} * a.kvHeadCount * splitsOf(a, mostTokens) * compiledAs(variant).partStride;
}

void decodeByWgmma(const DecodeVariant& variant, const AttentionArguments& a, uint32_t* arrivals, int32_t mostTokens, int32_t tokenCount,
                   int32_t kvBlockCount, Stream stream) {
  refuseWhere(a.headCount < 1 || a.kvHeadCount < 1 || a.headCount % a.kvHeadCount != 0, "heads must be a multiple of KV heads");
  const int32_t group = a.headCount / a.kvHeadCount;
  refuseWhere(group > variant.mostPairs, "more heads to a KV head than the variant holds pairs");
  refuseWhere(a.headSize != variant.headSize, "the variant is for another head size");
  refuseWhere(a.itemCount < 1 || tokenCount < 1 || kvBlockCount < 1 || mostTokens < 1, "nothing to attend to");
  refuseWhere(a.splitTokens < decodeTile || a.splitTokens % decodeTile != 0, "splitTokens must be a multiple of 64");
  refuseWhere(a.partials == nullptr || arrivals == nullptr, "splits need room for their sums");
  const int64_t kvRows = int64_t{kvBlockCount} * a.kvHeadCount * kvBlockTokens, headBytes = int64_t{2} * a.headSize;
  refuseWhere(kvRows >= int64_t{1} << 31, "a cache of 2^31 rows and more");
  DecodeLaunch arguments{};
  arguments.of = a;
  arguments.arrivals = arrivals;
  arguments.group = group;
  arguments.itemTokens = variant.mostPairs / group;
  arguments.outsideRow = static_cast<int32_t>(kvRows);
  arguments.mostSplits = splitsOf(a, mostTokens);
  arguments.workers = a.splitWorkers > 0 ? std::min(a.splitWorkers, arguments.mostSplits) : arguments.mostSplits;
  arguments.queries = encodeTensorMap({a.queries, ElementType::bf16, a.headSize, a.headCount, headBytes, 64, group, tokenCount,
                                       int64_t{2} * a.queryStride, arguments.itemTokens});
  arguments.keys = encodeTensorMap({a.kv.keys, ElementType::bf16, a.headSize, kvRows, headBytes, 64, kvBlockTokens});
  arguments.values = encodeTensorMap({a.kv.values, ElementType::bf16, a.headSize, kvRows, headBytes, 64, kvBlockTokens});
  compiledAs(variant).run(arguments, stream);
}

}  // namespace variator::cuda
