// See linear_variants.h.
#include "linear_variants.h"

#include <vector>

#include "native_fault.h"
#include "tiers.h"

namespace variator {
namespace {

struct Instructions {
  const char* name;
  std::vector<const char*> needs;  // as catalogue.ts has them
  const PanelKernels& kernels;
};

const std::vector<Instructions>& instructions() {
  static const std::vector<Instructions> all = {
#if defined(VARIATOR_HAS_X86_TIERS)
      {"avx512vnni", {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni"}, avx512VnniPanels},
      {"avx512", {"avx512f", "avx512bw", "avx512vl", "avx512dq"}, tier_avx512::maddubsPanels},
      {"avx2", {"avx2", "f16c"}, tier_avx2::maddubsPanels},
#endif
      {"generic", {}, genericPanels()},
  };
  return all;
}

}  // namespace

LinearVariant parseLinear(const std::string& name) {
  if (name == "linear.reference") return {};
  const std::string prefix = "linear.int8-";
  if (name.compare(0, prefix.size(), prefix) == 0) {
    for (const Instructions& one : instructions()) {
      if (name.compare(prefix.size(), std::string::npos, one.name) != 0) continue;
      if (!hasFeatures(one.needs)) throw NativeFault("linear: this machine cannot run " + name);
      return {LinearFamily::Int8, &one.kernels};
    }
  }
  throw NativeFault("linear: there is no variant " + name);
}

}  // namespace variator
