// See foreign_cpu.h.
#include "foreign_cpu.h"

#include <algorithm>
#include <cstdio>
#include <sys/resource.h>
#include <unistd.h>

namespace variator {
namespace {

constexpr auto spanTime = std::chrono::milliseconds(200);
constexpr auto pauseTime = std::chrono::milliseconds(100);

double secondsOf(const timeval& time) { return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec); }

}  // namespace

ForeignCpu::Sample ForeignCpu::take() {
  Sample sample;
  sample.time = std::chrono::steady_clock::now();
  FILE* file = std::fopen("/proc/stat", "re");
  if (file == nullptr) return sample;
  // user nice system idle iowait irq softirq steal
  double ticks[8]{};
  const int count = std::fscanf(file, "cpu %lf %lf %lf %lf %lf %lf %lf %lf", &ticks[0], &ticks[1], &ticks[2], &ticks[3],
                                &ticks[4], &ticks[5], &ticks[6], &ticks[7]);
  std::fclose(file);
  rusage usage{};
  if (count < 5 || getrusage(RUSAGE_SELF, &usage) != 0) return sample;
  const double ticksPerSecond = static_cast<double>(sysconf(_SC_CLK_TCK));
  for (const double tick : ticks) sample.totalSeconds += tick / ticksPerSecond;
  sample.busySeconds = sample.totalSeconds - (ticks[3] + ticks[4]) / ticksPerSecond;
  sample.ownSeconds = secondsOf(usage.ru_utime) + secondsOf(usage.ru_stime);
  sample.isKnown = true;
  return sample;
}

void ForeignCpu::begin() {
  if (!start_.isKnown || std::chrono::steady_clock::now() - lastEnd_ > pauseTime) start_ = take();
}

double ForeignCpu::end() {
  lastEnd_ = std::chrono::steady_clock::now();
  if (!start_.isKnown || lastEnd_ - start_.time < spanTime) return share_;
  const Sample now = take();
  const double total = now.totalSeconds - start_.totalSeconds;
  if (now.isKnown && total > 0) {
    const double foreign = (now.busySeconds - start_.busySeconds) - (now.ownSeconds - start_.ownSeconds);
    share_ = std::clamp(foreign / total, 0.0, 1.0);
  }
  start_ = now;
  return share_;
}

}  // namespace variator
