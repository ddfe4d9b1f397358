// How many threads a step gets while other processes want the processors, too: a thread that waits for its processor holds
// the others up at every barrier, so fewer are faster. Owned by Engine, used by its compute thread alone. The thread count
// changes no bit.
#pragma once
#include <algorithm>
#include <cmath>

namespace variator {

class ThreadBrake {
 public:
  explicit ThreadBrake(int processorCount) : processorCount_(processorCount) {}

  // At least one, at most `wanted`.
  int threadCount(int wanted) const { return std::clamp(processorCount_ - takenCount_, 1, wanted); }

  // The share of the machine that other processes used over the newest span (ForeignCpu).
  void note(double foreignShare) {
    const double foreign = foreignShare * processorCount_;
    // A processor counts as taken from 0.6 on and is given back below 0.35, so that the count does not flutter.
    const int atLeast = static_cast<int>(std::floor(foreign + 0.4)), atMost = static_cast<int>(std::floor(foreign + 0.65));
    takenCount_ = std::clamp(takenCount_, atLeast, std::max(atLeast, atMost));
  }

 private:
  int processorCount_;
  int takenCount_ = 0;
};

}  // namespace variator
