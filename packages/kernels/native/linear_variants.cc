// See linear_variants.h.
#include "linear_variants.h"

#include <utility>
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

constexpr std::pair<const char*, LinearFamily> families[] = {{"linear.int8-", LinearFamily::Int8},
                                                             {"linear.int8-residual-", LinearFamily::Int8Residual},
                                                             {"linear.int4-rounded-", LinearFamily::Int4Rounded},
                                                             {"linear.int4-", LinearFamily::Int4}};

}  // namespace

LinearFamily packingOf(LinearFamily family) {
  return family == LinearFamily::Int8Residual ? LinearFamily::Int4 : family;
}

PanelWidth panelWidthOf(LinearFamily family) {
  if (family == LinearFamily::Bf16) return PanelWidth::Bf16;
  if (family == LinearFamily::Int4 || family == LinearFamily::Int8Residual) return PanelWidth::AsStored;
  return family == LinearFamily::Int4Rounded ? PanelWidth::Four : PanelWidth::Eight;
}

PanelWidth headWidthOf(LinearFamily family) {
  return family == LinearFamily::Int4Rounded ? PanelWidth::AsStored : panelWidthOf(family);
}

LinearVariant parseLinear(const std::string& name) {
  if (name == "linear.reference") return {};
  for (const auto& [prefix, family] : families) {
    for (const Instructions& one : instructions()) {
      if (name != std::string(prefix) + one.name) continue;
      if (!hasFeatures(one.needs)) throw NativeFault("linear: this machine cannot run " + name);
      return {family, &one.kernels};
    }
  }
  if (name == "linear.bf16-generic") return {LinearFamily::Bf16, &portableBf16Panels()};
#if defined(VARIATOR_HAS_X86_TIERS)
  if (name == "linear.bf16-avx512bf16") {
    if (!hasFeatures({"avx512f", "avx512bw", "avx512vl", "avx512bf16"})) {
      throw NativeFault("linear: this machine cannot run " + name);
    }
    return {LinearFamily::Bf16, &avx512Bf16Panels};
  }
#endif
  throw NativeFault("linear: there is no variant " + name);
}

}  // namespace variator
