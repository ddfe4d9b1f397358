// See checks.h.
#include <cmath>

#include "checks.h"

namespace variator::cuda {

void CheckRun::near(const std::string& what, double got, double want, double relative, double absolute) {
  comparedCount++;
  const double allowed = relative * std::abs(want) + absolute;
  const double error = std::abs(got - want);
  if (!(error <= allowed) && fault.empty()) {
    fault = what + ": " + std::to_string(got) + " where " + std::to_string(want) + " was expected, allowed " + std::to_string(allowed);
  }
  if (error <= allowed && allowed > 0) worst = std::max(worst, error / allowed);
}

void CheckRun::same(const std::string& what, int64_t got, int64_t want) {
  comparedCount++;
  if (got != want && fault.empty()) fault = what + ": " + std::to_string(got) + " where " + std::to_string(want) + " was expected";
}

}  // namespace variator::cuda
