// Which tuning attention is computed with: a flat table by how many rows of a sequence a step computes and by how long its
// context is then. It comes with each step from TypeScript (packages/kernels/attention-dispatch.ts), which measured it, or is
// empty: then the defaults of AttentionTuning hold. None of it changes a bit.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace variator {

struct AttentionTuning {
  // (row, head) pairs of a KV head that are computed together, their sums in registers.
  int32_t pairsAtOnce = 6;
  // Blocks of the KV cache that are fetched ahead.
  int32_t prefetchBlocks = 1;
  // Groups of pairs that a split passes before the next split.
  int32_t groupsPerSplit = 1;
  // With fewer units of work a thread than so many, contexts are cut into a unit for each split.
  int32_t leastUnitsPerThread = 4;
};

// The ranges that catalogue.ts states.
constexpr int32_t mostPairsAtOnce = 6, mostPrefetchBlocks = 8, mostGroupsPerSplit = 16, mostUnitsPerThread = 64;

// One or a few rows of a sequence are `decode`, more `prefill`.
constexpr int64_t attentionRowBucketCount = 2, mostDecodeRows = 4;
// Contexts of up to 256, 1024, 4096, and more.
constexpr int64_t contextBucketCount = 4;
static inline int64_t contextBucketOf(int64_t length) {
  int64_t bucket = 0;
  while (bucket < contextBucketCount - 1 && length > (int64_t{256} << 2 * bucket)) bucket++;
  return bucket;
}

struct AttentionDispatch {
  std::vector<AttentionTuning> tunings;  // [attentionRowBucketCount, contextBucketCount], or empty

  // `length`: of the context behind the step's rows.
  AttentionTuning of(int64_t rowCount, int64_t length) const {
    if (tunings.empty()) return {};
    const int64_t rowBucket = rowCount > mostDecodeRows ? 1 : 0;
    return tunings[static_cast<std::size_t>(rowBucket * contextBucketCount + contextBucketOf(length))];
  }
};

// From [count, 4] integers; throws NativeFault where they are out of their ranges.
std::vector<AttentionTuning> readAttentionTunings(const std::vector<int32_t>& numbers, const char* name);

}  // namespace variator
