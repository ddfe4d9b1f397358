// Integer panels for x86-64 without VNNI: compiled for AVX2 and for AVX-512. vpmaddubsw saturates at 16 bits, so codes
// are multiplied by nibbles: 16 products of at most 15 * 127 stay below 2^15, and the group's dot is exact. 1 to 4
// activation rows at once. Called by step.cc, only where CPUID shows the tier.
#include <immintrin.h>

#include "panels.h"

namespace variator {
namespace VARIATOR_TIER {
namespace {

#define VARIATOR_INLINE static inline __attribute__((always_inline))
#if defined(__AVX512BW__)
typedef __m512i Codes;
typedef __m512 Floats;
constexpr int lanes = 16;
VARIATOR_INLINE Codes codesAt(const uint8_t* from) { return _mm512_loadu_si512(from); }
VARIATOR_INLINE Codes zeroCodes() { return _mm512_setzero_si512(); }
VARIATOR_INLINE Codes four(int32_t bytes) { return _mm512_set1_epi32(bytes); }
VARIATOR_INLINE Codes lowNibbles(Codes codes) { return _mm512_and_si512(codes, _mm512_set1_epi8(15)); }
VARIATOR_INLINE Codes highNibbles(Codes codes) { return lowNibbles(_mm512_srli_epi16(codes, 4)); }
VARIATOR_INLINE Codes addPairs(Codes sum, Codes codes, Codes others) {
  return _mm512_add_epi16(sum, _mm512_maddubs_epi16(codes, others));
}
VARIATOR_INLINE Codes dotOf(Codes pairs, int16_t factor) { return _mm512_madd_epi16(pairs, _mm512_set1_epi16(factor)); }
VARIATOR_INLINE Codes add(Codes a, Codes b) { return _mm512_add_epi32(a, b); }
VARIATOR_INLINE Floats floatsOf(Codes dots) { return _mm512_cvtepi32_ps(dots); }
VARIATOR_INLINE Floats fill(float value) { return _mm512_set1_ps(value); }
VARIATOR_INLINE void store(float* to, Floats value) { _mm512_storeu_ps(to, value); }
VARIATOR_INLINE Floats halvesAt(const uint8_t* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
#else
typedef __m256i Codes;
typedef __m256 Floats;
constexpr int lanes = 8;
VARIATOR_INLINE Codes codesAt(const uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const Codes*>(from)); }
VARIATOR_INLINE Codes zeroCodes() { return _mm256_setzero_si256(); }
VARIATOR_INLINE Codes four(int32_t bytes) { return _mm256_set1_epi32(bytes); }
VARIATOR_INLINE Codes lowNibbles(Codes codes) { return _mm256_and_si256(codes, _mm256_set1_epi8(15)); }
VARIATOR_INLINE Codes highNibbles(Codes codes) { return lowNibbles(_mm256_srli_epi16(codes, 4)); }
VARIATOR_INLINE Codes addPairs(Codes sum, Codes codes, Codes others) {
  return _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, others));
}
VARIATOR_INLINE Codes dotOf(Codes pairs, int16_t factor) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(factor)); }
VARIATOR_INLINE Codes add(Codes a, Codes b) { return _mm256_add_epi32(a, b); }
VARIATOR_INLINE Floats floatsOf(Codes dots) { return _mm256_cvtepi32_ps(dots); }
VARIATOR_INLINE Floats fill(float value) { return _mm256_set1_ps(value); }
VARIATOR_INLINE void store(float* to, Floats value) { _mm256_storeu_ps(to, value); }
VARIATOR_INLINE Floats halvesAt(const uint8_t* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
#endif

// `blocks` registers of weight rows from `firstRow` of the panel, times `rows` activation rows.
template <PanelFormat format, int rows, int blocks>
VARIATOR_INLINE void multiply(const uint8_t* panel, int64_t groupCount, const Activations& activations,
                              int64_t rowStart, int firstRow, float* out) {
  const int64_t stride = activations.stride, groupStride = stride / 32;
  const int8_t* codes = activations.codes + rowStart * stride;
  const float* scales = activations.scales + rowStart * groupStride;
  const float* scaledSums = activations.scaledSums + rowStart * groupStride;
  Floats sums[rows][blocks];
#pragma GCC unroll 4
  for (int m = 0; m < rows; m++) {
#pragma GCC unroll 4
    for (int b = 0; b < blocks; b++) sums[m][b] = fill(0);
  }
  for (int64_t g = 0; g < groupCount; g++, panel += groupBytesOf(format)) {
    Codes low[rows][blocks], high[rows][blocks];
#pragma GCC unroll 4
    for (int m = 0; m < rows; m++) {
#pragma GCC unroll 4
      for (int b = 0; b < blocks; b++) low[m][b] = high[m][b] = zeroCodes();
    }
    const auto othersAt = [&](int m, int k) __attribute__((always_inline)) {
      int32_t bytes;
      __builtin_memcpy(&bytes, codes + m * stride + g * 32 + k * 4, 4);
      return four(bytes);
    };
#pragma GCC unroll 8
    for (int k = 0; k < (isFourBit(format) ? 4 : 8); k++) {
#pragma GCC unroll 4
      for (int b = 0; b < blocks; b++) {
        const Codes weights = codesAt(panel + k * 128 + (firstRow + b * lanes) * 4);
        const Codes lows = lowNibbles(weights), highs = highNibbles(weights);
#pragma GCC unroll 4
        for (int m = 0; m < rows; m++) {
          low[m][b] = addPairs(low[m][b], lows, othersAt(m, k));
          // The high nibbles of int8 codes count sixteenfold; those of int4 are codes of their own.
          if (isFourBit(format)) low[m][b] = addPairs(low[m][b], highs, othersAt(m, k + 4));
          else high[m][b] = addPairs(high[m][b], highs, othersAt(m, k));
        }
      }
    }
#pragma GCC unroll 4
    for (int b = 0; b < blocks; b++) {
      const int64_t at = (firstRow + b * lanes) * 2;
      const Floats weightScale = halvesAt(panel + scaleOffsetOf(format) + at);
      const Floats minimum = isCentred(format) ? weightScale * fill(-centreOf(format))
                                               : halvesAt(panel + minimumOffsetOf(format) + at);
#pragma GCC unroll 4
      for (int m = 0; m < rows; m++) {
        const Codes lowDot = dotOf(low[m][b], 1);
        const Floats dot = floatsOf(isFourBit(format) ? lowDot : add(lowDot, dotOf(high[m][b], 16)));
        const Floats sum = sums[m][b] + minimum * fill(scaledSums[m * groupStride + g]);
        sums[m][b] = sum + dot * (weightScale * fill(scales[m * groupStride + g]));
      }
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < rows; m++) {
#pragma GCC unroll 4
    for (int b = 0; b < blocks; b++) store(out + m * 32 + firstRow + b * lanes, sums[m][b]);
  }
}

// As many weight rows at once as sums fit into the registers: a narrow strip walks the panel more often.
template <PanelFormat format, int rows>
VARIATOR_INLINE void multiplyRows(const uint8_t* panel, int64_t groupCount, const Activations& activations,
                                  int64_t rowStart, float* out) {
  constexpr int most = 32 / lanes, fitting = lanes == 16 ? 8 / rows : 3 / rows;
  constexpr int blocks = fitting >= most ? most : fitting >= 2 ? 2 : 1;
#pragma GCC unroll 4
  for (int first = 0; first < 32; first += blocks * lanes) {
    multiply<format, rows, blocks>(panel, groupCount, activations, rowStart, first, out);
  }
}

template <PanelFormat format>
void multiplyPanel(const uint8_t* panel, int64_t groupCount, const Activations& activations, int64_t rowStart,
                   int64_t rowCount, LinearTuning tuning, float* out) {
  const int64_t most = tuning.rowsAtOnce < 4 ? tuning.rowsAtOnce : 4;
  while (rowCount > 0) {
    const int64_t rows = rowCount < most ? rowCount : most;
    switch (rows) {
      case 1: multiplyRows<format, 1>(panel, groupCount, activations, rowStart, out); break;
      case 2: multiplyRows<format, 2>(panel, groupCount, activations, rowStart, out); break;
      case 3: multiplyRows<format, 3>(panel, groupCount, activations, rowStart, out); break;
      default: multiplyRows<format, 4>(panel, groupCount, activations, rowStart, out); break;
    }
    rowStart += rows;
    rowCount -= rows;
    out += rows * 32;
  }
}

}  // namespace

const PanelKernels maddubsPanels{{multiplyPanel<PanelFormat::Int8>, multiplyPanel<PanelFormat::Int8Centred>,
                                  multiplyPanel<PanelFormat::Int4>, multiplyPanel<PanelFormat::Int4Centred>, nullptr}};

}  // namespace VARIATOR_TIER
}  // namespace variator
