// See linear_dispatch.h.
#include "linear_dispatch.h"

#include <string>

#include "float_ops.h"
#include "native_fault.h"

namespace variator {

std::vector<LinearTuning> readTunings(const std::vector<int32_t>& numbers, const char* name) {
  if (numbers.size() % 4 != 0) throw NativeFault(std::string(name) + ": must be [count, 4]");
  std::vector<LinearTuning> tunings;
  for (size_t i = 0; i < numbers.size(); i += 4) {
    const LinearTuning tuning{numbers[i], numbers[i + 1], numbers[i + 2], numbers[i + 3]};
    const auto isIn = [](int32_t value, int32_t least, int32_t most) { return value >= least && value <= most; };
    if (!isIn(tuning.rowsAtOnce, 1, mostRowsAtOnce) || !isIn(tuning.prefetchGroups, 0, mostPrefetchGroups) ||
        !isIn(tuning.slabRows, 1, mostSlabRows) || !isIn(tuning.panelsAtOnce, 1, mostPanelsAtOnce)) {
      throw NativeFault(std::string(name) + ": entry " + std::to_string(i / 4) + " is out of its range");
    }
    tunings.push_back(tuning);
  }
  return tunings;
}

void roundRest(const float* x, int64_t groupCount, const int8_t* codes, const float* scales, int8_t* restCodes,
               float* restScales, float* restScaledSums) {
  float rest[32];
  for (int64_t g = 0; g < groupCount; g++) {
    floatOps().leftOver(x + 32 * g, 1, codes + 32 * g, scales + g, rest);
    floatOps().quantise(rest, 1, restCodes + 32 * g, restScales + g, restScaledSums + g);
  }
}

}  // namespace variator
