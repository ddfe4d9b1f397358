// See machine_probe.h. Each figure is the best of the rounds that fit its share of the time.
#include "machine_probe.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <functional>
#include <thread>

#include <unistd.h>

#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#include "float_ops.h"
#include "tensor.h"
#include "thread_team.h"
#include "tiers.h"

namespace variator {
namespace {

// Several times a last-level cache of 32 MiB: of 96 MiB in all it still held a third, and the figure was that much too high.
constexpr int64_t readBytesPerThread = int64_t{96} << 20;
constexpr int64_t readBytesAtMost = int64_t{256} << 20;

// Where memory is short, a part of what is free.
int64_t readBytesFor(int threadCount) {
  int64_t spare = readBytesAtMost;
#if defined(_SC_AVPHYS_PAGES)
  const long pages = sysconf(_SC_AVPHYS_PAGES), pageSize = sysconf(_SC_PAGESIZE);
  if (pages > 0 && pageSize > 0) spare = int64_t{pages} * pageSize / 8;
#endif
  const int64_t most = std::max<int64_t>(std::min(readBytesAtMost, spare), int64_t{threadCount} << 20);
  return std::min(readBytesPerThread, most / threadCount) / 4096 * 4096;
}

double secondsNow() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string readCpuModel() {
#if defined(__APPLE__)
  char name[256]{};
  size_t size = sizeof name - 1;
  if (sysctlbyname("machdep.cpu.brand_string", name, &size, nullptr, 0) == 0) return name;
#endif
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const size_t start = line.find_first_not_of(" \t", line.find(':') + 1);
    if (start != std::string::npos) return line.substr(start);
  }
  return "unknown";
}

// Amount a second: `work` does `amount` on every thread; repeated for `seconds`, at least twice.
double bestRate(ThreadTeam& team, double amount, double seconds, const std::function<void(int)>& work) {
  double best = 0;
  const double end = secondsNow() + seconds;
  for (int round = 0; round < 2 || secondsNow() < end; round++) {
    const double start = secondsNow();
    team.run(team.threadCount(), work);
    best = std::max(best, amount * team.threadCount() / (secondsNow() - start));
  }
  return best;
}

}  // namespace

MachineProbe probeMachine(int threadCount) {
  ThreadTeam team(threadCount);
  const int64_t bytes = readBytesFor(threadCount);
  const int64_t floats = bytes / 4;
  const Arena memory(bytes * threadCount, "machine probe");
  float* values = reinterpret_cast<float*>(memory.data());
  std::atomic<double> sink{0};  // what the loops return must go somewhere
  team.run(threadCount, [&](int t) { std::fill(values + t * floats, values + (t + 1) * floats, 1.0f); });

  const ProbeLoops& loops = probeLoops();
  const double readRate = bestRate(team, static_cast<double>(bytes), 0.04,
                                   [&](int t) { sink.store(loops.read(values + t * floats, floats)); });
  constexpr int64_t rounds = 100'000;
  const double flopRate = bestRate(team, 2.0 * 16 * 12 * rounds, 0.01,
                                   [&](int) { sink.store(loops.multiplyAdd(rounds)); });
  const ProbeLoops& int8Loops = hasFeatures({"avx512vnni"}) ? loops : plainProbeLoops();
  const double int8Rate = bestRate(team, 2.0 * 64 * 12 * rounds, 0.01,
                                   [&](int) { sink.store(int8Loops.int8Dot(rounds)); });
  return {readCpuModel(),
          static_cast<int>(std::max(1u, std::thread::hardware_concurrency())),
          cpuFeatures(),
          readRate,
          flopRate,
          int8Rate};
}

}  // namespace variator
