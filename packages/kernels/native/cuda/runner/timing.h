// How the runner times launches: a graph of many, replayed, the median of the replays between two events. Inputs are rotated
// over more memory than the L2 holds, and random: what lies in a cache, or is zero, is quicker than it will be in use.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "../gpu.h"

namespace variator::cuda {

struct TimedRow {
  std::string kernel, shape, parameters;
  double us = 0;
  double bytes = 0, operations = 0;  // of one launch
};

struct TimingScale {
  int launchesPerGraph, replays;
  int64_t rotatedBytes;  // inputs are spread over so many at least
};

// Microseconds a launch; `launchOne(i)` gives the stream the i-th.
double medianUs(Stream stream, const TimingScale& scale, const std::function<void(int)>& launchOne);
// The same without a graph.
double eagerUs(Stream stream, const TimingScale& scale, const std::function<void(int)>& launchOne);

}  // namespace variator::cuda
