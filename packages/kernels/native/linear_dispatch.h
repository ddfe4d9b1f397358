// Which tuning a linear layer is walked with: a flat table by the matrix's shape and the bucket of its row count. It comes
// with each step from TypeScript (packages/kernels/linear-dispatch.ts), which measured it, or is empty: then the defaults of
// LinearTuning hold.
#pragma once
#include <algorithm>
#include <vector>

#include "panels.h"

namespace variator {

// Rows 1, 2, 3 to 4, 5 to 8, ... 65 to 128, and more.
constexpr int64_t rowBucketCount = 9;
static inline int64_t rowBucketOf(int64_t rowCount) {
  int64_t bucket = 0;
  while (bucket < rowBucketCount - 1 && rowCount > (int64_t{1} << bucket)) bucket++;
  return bucket;
}

// The ranges that catalogue.ts states.
constexpr int32_t mostRowsAtOnce = 6, mostPrefetchGroups = 16, mostSlabRows = 96, mostPanelsAtOnce = 32;

struct LinearDispatch {
  std::vector<LinearTuning> tunings;  // [shapes, rowBucketCount], or empty

  LinearTuning of(int32_t linearShape, int64_t rowCount) const {
    if (tunings.empty()) return {};
    return tunings[static_cast<size_t>(linearShape * rowBucketCount + rowBucketOf(rowCount))];
  }
};

// From [count, 4] integers; throws NativeFault where they are out of their ranges.
std::vector<LinearTuning> readTunings(const std::vector<int32_t>& numbers, const char* name);

// Rounds what codes and scales leave over of `x`, so many groups of 32.
void roundRest(const float* x, int64_t groupCount, const int8_t* codes, const float* scales, int8_t* restCodes,
               float* restScales, float* restScaledSums);

// Calls `multiply(panel, rowStart, rowCount)` for panels begin .. end and all rows, in the tuning's order.
template <typename Multiply>
void walkPanels(int64_t begin, int64_t end, int64_t rowStart, int64_t rowCount, const LinearTuning& tuning,
                const Multiply& multiply) {
  for (int64_t first = begin; first < end; first += tuning.panelsAtOnce) {
    const int64_t groupEnd = std::min<int64_t>(first + tuning.panelsAtOnce, end);
    for (int64_t start = rowStart; start < rowStart + rowCount; start += tuning.slabRows) {
      const int64_t count = std::min<int64_t>(tuning.slabRows, rowStart + rowCount - start);
      for (int64_t panel = first; panel < groupEnd; panel++) multiply(panel, start, count);
    }
  }
}

}  // namespace variator
