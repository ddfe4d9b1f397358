// Sixteen float32 lanes in the registers of the tier, for the sums of inner loops: one with AVX-512, two with AVX2, where the
// compiler would keep a vector of 64 bytes in memory, and Lanes elsewhere. The same arithmetic, so the same bits.
// Included only by files that are compiled once a tier; everything here is static.
#pragma once
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "lanes.h"

namespace {

#if defined(__AVX2__) && !defined(__AVX512F__)
#define VARIATOR_TWO_REGISTERS 1

struct Wide {
  __m256 low, high;
};
VARIATOR_INLINE Wide noSum() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
VARIATOR_INLINE Wide wideAt(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
VARIATOR_INLINE void store(float* to, Wide value) {
  _mm256_storeu_ps(to, value.low);
  _mm256_storeu_ps(to + 8, value.high);
}
#if defined(__FMA__)
// a * b + c with one rounding, b the same in all lanes.
VARIATOR_INLINE Wide multiplyAdd(Wide a, float b, Wide c) {
  const __m256 factor = _mm256_set1_ps(b);
  return {_mm256_fmadd_ps(a.low, factor, c.low), _mm256_fmadd_ps(a.high, factor, c.high)};
}
#endif
VARIATOR_INLINE Wide plus(Wide a, Wide b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
// (a + b) * factor
VARIATOR_INLINE Wide scaledSum(Wide a, Wide b, float factor) {
  const __m256 all = _mm256_set1_ps(factor);
  return {_mm256_mul_ps(_mm256_add_ps(a.low, b.low), all), _mm256_mul_ps(_mm256_add_ps(a.high, b.high), all)};
}

// 16 words of two bf16 each: the lower ones and the upper ones.
VARIATOR_INLINE void bf16PairsAt(const uint16_t* from, Wide* lower, Wide* upper) {
  const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 16));
  const __m256i mask = _mm256_set1_epi32(static_cast<int32_t>(0xffff0000u));
  *lower = {_mm256_castsi256_ps(_mm256_slli_epi32(low, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(high, 16))};
  *upper = {_mm256_castsi256_ps(_mm256_and_si256(low, mask)), _mm256_castsi256_ps(_mm256_and_si256(high, mask))};
}

// Pairs whose scores, and registers of 16 sums of values for so many pairs, stay in 16 registers.
constexpr int pairsInRegisters = 3;
// Rows and columns of a square of sums.
constexpr int sideInRegisters = 2;
constexpr int valueLanesFor(int pairCount) { return pairCount == 1 ? 4 : pairCount <= 3 ? 2 : 1; }

#else

typedef Lanes Wide;
VARIATOR_INLINE Wide noSum() { return Lanes{}; }
VARIATOR_INLINE Wide wideAt(const float* from) { return load(from); }
VARIATOR_INLINE Wide multiplyAdd(Wide a, float b, Wide c) {
#if defined(__AVX512F__)
  return (Lanes)_mm512_fmadd_ps((__m512)a, _mm512_set1_ps(b), (__m512)c);
#else
  Lanes out;
  for (int i = 0; i < 16; i++) out[i] = __builtin_fmaf(a[i], b, c[i]);
  return out;
#endif
}
VARIATOR_INLINE Wide plus(Wide a, Wide b) { return a + b; }
VARIATOR_INLINE Wide scaledSum(Wide a, Wide b, float factor) { return (a + b) * factor; }
VARIATOR_INLINE void bf16PairsAt(const uint16_t* from, Wide* lower, Wide* upper) {
  IntLanes words;
  __builtin_memcpy(&words, from, 64);
  *lower = (Lanes)(words << 16);
  *upper = (Lanes)(words & (IntLanes{} + static_cast<int32_t>(0xffff0000u)));
}
constexpr int pairsInRegisters = 6;
constexpr int sideInRegisters = 4;
constexpr int valueLanesFor(int) { return 4; }

#endif

// Whole-number dots of 16 lanes, and how they enter a sum.
#if defined(VARIATOR_TWO_REGISTERS)
struct Dots {
  __m256i low, high;
};
VARIATOR_INLINE Dots noDots() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
VARIATOR_INLINE Dots wordsAt(const uint8_t* from) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 32))};
}
VARIATOR_INLINE Wide floatsOf(Dots dots) { return {_mm256_cvtepi32_ps(dots.low), _mm256_cvtepi32_ps(dots.high)}; }
VARIATOR_INLINE Dots less(Dots dots, int32_t offset) {
  const __m256i all = _mm256_set1_epi32(offset);
  return {_mm256_sub_epi32(dots.low, all), _mm256_sub_epi32(dots.high, all)};
}
VARIATOR_INLINE Wide multiply(Wide a, Wide b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
VARIATOR_INLINE Wide multiply(Wide a, float b) { return multiply(a, Wide{_mm256_set1_ps(b), _mm256_set1_ps(b)}); }
#else
typedef IntLanes Dots;
VARIATOR_INLINE Dots noDots() { return IntLanes{}; }
VARIATOR_INLINE Dots wordsAt(const uint8_t* from) {
  IntLanes words;
  __builtin_memcpy(&words, from, 64);
  return words;
}
VARIATOR_INLINE Wide floatsOf(Dots dots) { return __builtin_convertvector(dots, Lanes); }
VARIATOR_INLINE Dots less(Dots dots, int32_t offset) { return dots - offset; }
VARIATOR_INLINE Wide multiply(Wide a, Wide b) { return a * b; }
VARIATOR_INLINE Wide multiply(Wide a, float b) { return a * b; }
#endif

}  // namespace
