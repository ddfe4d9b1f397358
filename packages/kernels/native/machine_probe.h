// What this machine is and how fast it is just now. Called once when a worker starts, by addon.cc.
#pragma once
#include <string>
#include <vector>

namespace variator {

struct MachineProbe {
  std::string cpuModel;
  int coreCount;
  std::vector<std::string> features;
  double readBytesPerSecond;
  double float32FlopsPerSecond;
  double int8OpsPerSecond;
};

// Takes 300 ms at most, on `threadCount` threads.
MachineProbe probeMachine(int threadCount);

}  // namespace variator
