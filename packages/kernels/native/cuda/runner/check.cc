// `check` of the runner: every kernel against its slow version, under some seeds.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "../../native_fault.h"
#include "../checks/checks.h"
#include "commands.h"

namespace variator::cuda {

int runCheck(const std::vector<std::string>& arguments) {
  int64_t seedCount = 1;
  uint64_t firstSeed = 1;
  std::string only;
  for (size_t i = 0; i + 1 < arguments.size(); i += 2) {
    if (arguments[i] == "--seeds") seedCount = std::atoll(arguments[i + 1].c_str());
    else if (arguments[i] == "--first-seed") firstSeed = std::strtoull(arguments[i + 1].c_str(), nullptr, 10);
    else if (arguments[i] == "--only") only = arguments[i + 1];
    else return 2;
  }
  const DeviceInfo device = deviceInfo();
  std::printf("device: %s%s\n", device.name.c_str(), device.isEmulated ? " (emulated: no hardware was used)" : "");
  const Stream stream = createStream();
  int failedCount = 0, runCount = 0;
  for (const Check& one : allChecks()) {
    if (!only.empty() && only != one.name) continue;
    double worst = 0;
    int64_t compared = 0;
    std::string fault;
    for (uint64_t seed = firstSeed; seed < firstSeed + static_cast<uint64_t>(seedCount) && fault.empty(); seed++) {
      setScheduleSeed(seed);
      CheckRun run{stream, seed, {}, 0, 0};
      try {
        one.run(run);
        fault = run.fault;
      } catch (const NativeFault& error) {
        fault = error.what();
      }
      if (!fault.empty()) fault += " (seed " + std::to_string(seed) + ")";
      worst = run.worst > worst ? run.worst : worst;
      compared += run.comparedCount;
    }
    runCount++;
    if (!fault.empty()) failedCount++;
    std::printf("%-6s %-24s %10lld values, worst error %.2f of what is allowed%s%s\n", fault.empty() ? "ok" : "WRONG", one.name,
                static_cast<long long>(compared), worst, fault.empty() ? "" : ": ", fault.c_str());
  }
  destroyStream(stream);
  if (runCount == 0) {
    std::printf("there is no check %s\n", only.c_str());
    return 2;
  }
  return failedCount == 0 ? 0 : 1;
}

}  // namespace variator::cuda
