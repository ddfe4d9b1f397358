// How much of the machine other processes use: /proc/stat less this process's own CPU time. The system counts in
// hundredths of a second, so the share is taken over spans of 200 ms or more and kept between them. 0 where unknown.
// Owned by Engine, used by its compute thread alone.
#pragma once
#include <chrono>

namespace variator {

class ForeignCpu {
 public:
  // Called when a step begins: a pause before it is not part of any span.
  void begin();
  // Called when a step ends; the share over the last full span.
  double end();

 private:
  struct Sample {
    std::chrono::steady_clock::time_point time;
    double totalSeconds = 0;  // of all processors
    double busySeconds = 0;
    double ownSeconds = 0;
    bool isKnown = false;
  };
  static Sample take();
  Sample start_;
  std::chrono::steady_clock::time_point lastEnd_;
  double share_ = 0;
};

}  // namespace variator
