// Attention by itself, so that tests can hold every variant, split and tuning to a reference on any shape. No part of a step.
#pragma once
#include <vector>

#include "step.h"

namespace variator {

struct AttentionTrial {
  AttentionVariant attention;
  int64_t headCount, kvHeadCount, headSize, windowTokens, blockSize, splitTokens;
  int threadCount;
  std::vector<AttentionTuning> tunings;  // one, for all rows and contexts
  std::vector<int32_t> tokenStarts;      // [n + 1] rows that are computed
  std::vector<int32_t> contextLengths;   // [n] tokens before them
  std::vector<float> queries;            // [T, headCount, headSize]
  std::vector<float> keys, values;       // [tokens of all contexts and rows, sequence after sequence, kvHeadCount, headSize]
};

// [T, headCount, headSize]. Blocks lie in the cache backwards, and every byte that nobody wrote is 0xff. Throws NativeFault
// where the lists do not fit each other.
std::vector<float> attendAlone(const AttentionTrial& trial);

}  // namespace variator
