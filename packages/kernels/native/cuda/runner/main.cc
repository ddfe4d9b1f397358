// The runner: what a machine with a GPU needs and no Node. commands.h says what it can do.
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "../../native_fault.h"
#include "commands.h"

int main(int count, char** words) {
  using namespace variator::cuda;
  const struct {
    const char *name, *use;
    int (*run)(const std::vector<std::string>& arguments);
  } commands[] = {
      {"check", "check [--seeds N] [--first-seed N] [--only NAME]", runCheck},
      {"golden", "golden [--linear mma|gemv|wgmma|library|skinny] [--weights bf16|e4m3|int4] [--kv bf16|fp8] [--decode mma|wgmma] [--chunk TOKENS] [--tokens N] [--least SHARE] FILE.golden ...", runGolden},
      {"invariance", "invariance [--weights bf16|e4m3|int4] [--kv bf16|fp8] FILE.golden ...", runInvariance},
      {"time", "time [--quick] [--json FILE]", runTime},
      {"time-hopper", "time-hopper [--quick]", runTimeHopper},
      {"time-step", "time-step [--quick]", runTimeStep},
  };
  const std::vector<std::string> arguments(words + (count < 2 ? count : 2), words + count);
  for (const auto& command : commands) {
    if (count < 2 || std::strcmp(words[1], command.name) != 0) continue;
    try {
      const int status = command.run(arguments);
      if (status != 2) return status;
    } catch (const variator::NativeFault& fault) {
      std::fprintf(stderr, "%s\n", fault.what());
      return 1;
    }
  }
  for (const auto& command : commands) std::fprintf(stderr, "use: variator-cuda %s\n", command.use);
  return 2;
}
