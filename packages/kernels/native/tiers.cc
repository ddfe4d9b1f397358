// Picks the instruction-set tier of the float32 operations and names the machine's features, within a limit that tests
// set. Called by step.cc, model packing and the probe; decides nothing about execution paths.
#include "tiers.h"

#include <algorithm>
#include <atomic>

#include "kv_cache.h"
#include "native_fault.h"
#include "panels.h"

namespace variator {

namespace {

struct NamedIsa {
  const char* name;
  int level;
};
constexpr NamedIsa isas[] = {{"generic", 0}, {"avx2", 1}, {"avx512", 2}, {"avx512vnni", 3}, {"all", 4}};
std::atomic<int> isaLimit{4};

#if defined(VARIATOR_HAS_X86_TIERS)
// 0, 1 and 2: the tier of float_ops.h that this machine runs within the limit.
int tier() {
  static const bool hasAvx2 = __builtin_cpu_supports("avx2");
  static const bool hasAvx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  const int most = hasAvx512 ? 2 : hasAvx2 ? 1 : 0;
  return std::min(most, isaLimit.load(std::memory_order_relaxed));
}
#define VARIATOR_PICK(ops) (tier() == 2 ? tier_avx512::ops : tier() == 1 ? tier_avx2::ops : tier_base::ops)
#else
#define VARIATOR_PICK(ops) tier_base::ops
#endif

}  // namespace

void limitIsa(const std::string& isa) {
  for (const NamedIsa& one : isas) {
    if (isa == one.name) {
      isaLimit.store(one.level, std::memory_order_relaxed);
      return;
    }
  }
  throw NativeFault("isa: " + isa + " is not one of generic, avx2, avx512, avx512vnni, all");
}

std::vector<std::string> cpuFeatures() {
  std::vector<std::string> features;
#if defined(VARIATOR_HAS_X86_TIERS)
  __builtin_cpu_init();
  const int limit = isaLimit.load(std::memory_order_relaxed);
#define VARIATOR_FEATURE(name, level) \
  if (limit >= (level) && __builtin_cpu_supports(name)) features.emplace_back(name);
  VARIATOR_FEATURE("avx", 1)
  VARIATOR_FEATURE("avx2", 1)
  VARIATOR_FEATURE("fma", 1)
  VARIATOR_FEATURE("f16c", 1)
  VARIATOR_FEATURE("avx512f", 2)
  VARIATOR_FEATURE("avx512bw", 2)
  VARIATOR_FEATURE("avx512vl", 2)
  VARIATOR_FEATURE("avx512dq", 2)
  VARIATOR_FEATURE("avx512vbmi", 4)
  VARIATOR_FEATURE("avx512vnni", 3)
  VARIATOR_FEATURE("avx512bf16", 4)
#undef VARIATOR_FEATURE
#endif
  return features;
}

bool hasFeatures(const std::vector<const char*>& needed) {
  const std::vector<std::string> features = cpuFeatures();
  for (const char* name : needed) {
    if (std::find(features.begin(), features.end(), name) == features.end()) return false;
  }
  return true;
}

const FloatOps& floatOps() { return VARIATOR_PICK(floatOps); }
const AttentionOps& attentionOps() { return VARIATOR_PICK(attentionOps); }
const PanelKernels& portableBf16Panels() { return VARIATOR_PICK(bf16Panels); }
const PanelKernels& genericPanels() { return VARIATOR_PICK(genericPanels); }
const ProbeLoops& probeLoops() { return VARIATOR_PICK(probeLoops); }

// Compiled with fused multiply-adds, which every machine with AVX-512 and all but a few with AVX2 have.
#if defined(VARIATOR_HAS_X86_TIERS)
static bool hasFused() {
  static const bool has = __builtin_cpu_supports("fma");
  return has && tier() >= 1;
}
static bool hasVnni() {
  static const bool has = __builtin_cpu_supports("avx512vnni");
  return has && tier() == 2 && isaLimit.load(std::memory_order_relaxed) >= 3;
}
#define VARIATOR_PICK_FUSED(ops) (tier() == 2 ? tier_avx512::ops : hasFused() ? tier_avx2::ops : tier_base::ops)
#else
#define VARIATOR_PICK_FUSED(ops) tier_base::ops
#endif

const KvOps& kvOps(KvFormat format) {
  if (format == KvFormat::Bf16) return VARIATOR_PICK_FUSED(kvOpsBf16);
  return format == KvFormat::Int8 ? VARIATOR_PICK_FUSED(kvOpsInt8) : VARIATOR_PICK_FUSED(kvOpsFloat32);
}

AttendSplit attendSplit(KvFormat format) {
  if (format == KvFormat::Float32) return VARIATOR_PICK_FUSED(attendFloat32);
  if (format == KvFormat::Bf16) return VARIATOR_PICK_FUSED(attendBf16);
#if defined(VARIATOR_HAS_X86_TIERS)
  if (hasVnni()) return attendInt8Avx512Vnni;
#endif
  return VARIATOR_PICK_FUSED(attendInt8);
}

const ProbeLoops& plainProbeLoops() {
#if defined(VARIATOR_HAS_X86_TIERS)
  return tier() >= 1 ? tier_avx2::probeLoops : tier_base::probeLoops;
#else
  return tier_base::probeLoops;
#endif
}

}  // namespace variator
