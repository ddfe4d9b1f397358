// ProbeLoops: how fast this machine reads, multiplies float32 and multiplies int8, in loops short enough to repeat.
// Compiled once a tier; called by machine_probe.cc alone.
#include "float_ops.h"
#include "lanes.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace variator {
namespace VARIATOR_TIER {
namespace {

constexpr int chainCount = 12;

float read(const float* from, int64_t size) {
  Lanes sums[4]{};
  for (int64_t i = 0; i + 64 <= size; i += 64) {
    for (int part = 0; part < 4; part++) sums[part] += load(from + i + 16 * part);
  }
  return sumOf((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

float multiplyAdd(int64_t rounds) {
  Lanes sums[chainCount]{};
  Lanes factor = fill(0.999f), term = fill(0.001f);
  for (int64_t i = 0; i < rounds; i++) {
    for (auto& sum : sums) {
#if defined(__AVX512F__)
      sum = (Lanes)_mm512_fmadd_ps((__m512)sum, (__m512)factor, (__m512)term);
#else
      sum = sum * factor + term;
#endif
    }
  }
  float total = 0;
  for (const auto& sum : sums) total += sumOf(sum);
  return total;
}

#if defined(__AVX512F__)
// Needs avx512vnni beyond this tier's flags; machine_probe.cc calls it only where CPUID shows it.
__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni"))) int32_t int8Dot(int64_t rounds) {
  __m512i sums[chainCount];
  for (auto& sum : sums) sum = _mm512_setzero_si512();
  __m512i codes = _mm512_set1_epi8(3), others = _mm512_set1_epi8(5);
  for (int64_t i = 0; i < rounds; i++) {
    for (auto& sum : sums) sum = _mm512_dpbusd_epi32(sum, codes, others);
  }
  __m512i total = sums[0];
  for (int i = 1; i < chainCount; i++) total = _mm512_add_epi32(total, sums[i]);
  int32_t first;
  __builtin_memcpy(&first, &total, 4);
  return first;
}
#else
int32_t int8Dot(int64_t rounds) {
  typedef uint16_t Shorts __attribute__((vector_size(64)));
  Shorts sums[chainCount]{};
  const Shorts codes = Shorts{} + uint16_t{3};
  Shorts others = Shorts{} + uint16_t{5};
  for (int64_t i = 0; i < rounds * 2; i++) {
    for (auto& sum : sums) sum += codes * others;
    others += sums[0];
  }
  int32_t total = 0;
  for (const auto& sum : sums) {
    for (int lane = 0; lane < 32; lane++) total += sum[lane];
  }
  return total;
}
#endif

}  // namespace

extern const ProbeLoops probeLoops{read, multiplyAdd, int8Dot};

}  // namespace VARIATOR_TIER
}  // namespace variator
