// Picks the instruction-set tier of the float32 operations and names the machine's features. Asks CPUID once.
// Called by step.cc, model packing and the probe; decides nothing about execution paths.
#include "tiers.h"

#include "float_ops.h"

namespace variator {

std::vector<std::string> cpuFeatures() {
  std::vector<std::string> features;
#if defined(VARIATOR_HAS_X86_TIERS)
  __builtin_cpu_init();
#define VARIATOR_FEATURE(name) \
  if (__builtin_cpu_supports(name)) features.emplace_back(name);
  VARIATOR_FEATURE("avx")
  VARIATOR_FEATURE("avx2")
  VARIATOR_FEATURE("fma")
  VARIATOR_FEATURE("avx512f")
  VARIATOR_FEATURE("avx512bw")
  VARIATOR_FEATURE("avx512vl")
  VARIATOR_FEATURE("avx512dq")
  VARIATOR_FEATURE("avx512vbmi")
  VARIATOR_FEATURE("avx512vnni")
  VARIATOR_FEATURE("avx512bf16")
#undef VARIATOR_FEATURE
#endif
  return features;
}

bool hasFeatures(std::initializer_list<const char*> needed) {
  static const std::vector<std::string> features = cpuFeatures();
  for (const char* name : needed) {
    bool isThere = false;
    for (const auto& feature : features) isThere = isThere || feature == name;
    if (!isThere) return false;
  }
  return true;
}

#if defined(VARIATOR_HAS_X86_TIERS)
#define VARIATOR_PICK(ops)                                                         \
  (hasFeatures({"avx512f", "avx512bw", "avx512vl", "avx512dq"}) ? tier_avx512::ops \
   : hasFeatures({"avx2"})                                      ? tier_avx2::ops   \
                                                                : tier_base::ops)
#else
#define VARIATOR_PICK(ops) tier_base::ops
#endif

const FloatOps& floatOps() {
  static const FloatOps& picked = VARIATOR_PICK(floatOps);
  return picked;
}

const AttentionOps& attentionOps() {
  static const AttentionOps& picked = VARIATOR_PICK(attentionOps);
  return picked;
}

Int8PanelFunction int8PanelGeneric() {
  static const Int8PanelFunction picked = VARIATOR_PICK(int8PanelGeneric);
  return picked;
}

const ProbeLoops& probeLoops() {
  static const ProbeLoops& picked = VARIATOR_PICK(probeLoops);
  return picked;
}

const ProbeLoops& plainProbeLoops() {
#if defined(VARIATOR_HAS_X86_TIERS)
  return hasFeatures({"avx2"}) ? tier_avx2::probeLoops : tier_base::probeLoops;
#else
  return tier_base::probeLoops;
#endif
}

}  // namespace variator
