// See attention_dispatch.h.
#include "attention_dispatch.h"

#include <string>

#include "native_fault.h"

namespace variator {

std::vector<AttentionTuning> readAttentionTunings(const std::vector<int32_t>& numbers, const char* name) {
  if (numbers.size() % 4 != 0) throw NativeFault(std::string(name) + ": must be [count, 4]");
  std::vector<AttentionTuning> tunings;
  for (size_t i = 0; i < numbers.size(); i += 4) {
    const AttentionTuning tuning{numbers[i], numbers[i + 1], numbers[i + 2], numbers[i + 3]};
    const auto isIn = [](int32_t value, int32_t least, int32_t most) { return value >= least && value <= most; };
    if (!isIn(tuning.pairsAtOnce, 1, mostPairsAtOnce) || !isIn(tuning.prefetchBlocks, 0, mostPrefetchBlocks) ||
        !isIn(tuning.groupsPerSplit, 1, mostGroupsPerSplit) || !isIn(tuning.leastUnitsPerThread, 0, mostUnitsPerThread)) {
      throw NativeFault(std::string(name) + ": entry " + std::to_string(i / 4) + " is out of its range");
    }
    tunings.push_back(tuning);
  }
  return tunings;
}

}  // namespace variator
