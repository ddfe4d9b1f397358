// Integer panels by vpdpbusd (u8 weights x s8 activations), 1 to 6 activation rows at once so that sums stay in
// registers. Each row's instructions and their order are the same in every blocking. Called by step.cc, only where CPUID
// shows AVX-512 VNNI.
#include <immintrin.h>

#include "panels.h"

namespace variator {
namespace {

template <PanelFormat format, int rows>
inline __attribute__((always_inline)) void multiply(const uint8_t* panel, int64_t groupCount,
                                                    const Activations& activations, int64_t rowStart,
                                                    int64_t prefetchGroups, float* out) {
  constexpr int64_t groupBytes = groupBytesOf(format);
  const int64_t stride = activations.stride, groupStride = stride / 32;
  const int8_t* codes = activations.codes + rowStart * stride;
  const float* scales = activations.scales + rowStart * groupStride;
  const float* scaledSums = activations.scaledSums + rowStart * groupStride;
  __m512 sums[rows][2];
#pragma GCC unroll 6
  for (int m = 0; m < rows; m++) sums[m][0] = sums[m][1] = _mm512_setzero_ps();
  for (int64_t g = 0; g < groupCount; g++, panel += groupBytes) {
    if (rows <= 2 && prefetchGroups > 0) {
      for (int64_t line = 0; line < groupBytes; line += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(panel) + prefetchGroups * groupBytes + line, _MM_HINT_T0);
      }
    }
    __m512i dots[rows][2];
#pragma GCC unroll 6
    for (int m = 0; m < rows; m++) dots[m][0] = dots[m][1] = _mm512_setzero_si512();
    const auto addColumns = [&](int k, __m512i low, __m512i high) __attribute__((always_inline)) {
#pragma GCC unroll 6
      for (int m = 0; m < rows; m++) {
        int32_t four;
        __builtin_memcpy(&four, codes + m * stride + g * 32 + k * 4, 4);
        const __m512i other = _mm512_set1_epi32(four);
        dots[m][0] = _mm512_dpbusd_epi32(dots[m][0], low, other);
        dots[m][1] = _mm512_dpbusd_epi32(dots[m][1], high, other);
      }
    };
#pragma GCC unroll 8
    for (int k = 0; k < (isFourBit(format) ? 4 : 8); k++) {
      const __m512i low = _mm512_loadu_si512(panel + k * 128), high = _mm512_loadu_si512(panel + k * 128 + 64);
      if (!isFourBit(format)) {
        addColumns(k, low, high);
        continue;
      }
      const __m512i nibble = _mm512_set1_epi8(15);
      addColumns(k, _mm512_and_si512(low, nibble), _mm512_and_si512(high, nibble));
      addColumns(k + 4, _mm512_and_si512(_mm512_srli_epi16(low, 4), nibble),
                 _mm512_and_si512(_mm512_srli_epi16(high, 4), nibble));
    }
    const auto halves = [&](int64_t offset) __attribute__((always_inline)) {
      return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(panel + offset)));
    };
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
      const __m512 weightScale = halves(scaleOffsetOf(format) + half * 32);
      const __m512 minimum = isCentred(format) ? _mm512_mul_ps(weightScale, _mm512_set1_ps(-centreOf(format)))
                                               : halves(minimumOffsetOf(format) + half * 32);
#pragma GCC unroll 6
      for (int m = 0; m < rows; m++) {
        const __m512 scale = _mm512_set1_ps(scales[m * groupStride + g]);
        const __m512 scaledSum = _mm512_set1_ps(scaledSums[m * groupStride + g]);
        const __m512 sum = _mm512_add_ps(sums[m][half], _mm512_mul_ps(minimum, scaledSum));
        const __m512 dot = _mm512_cvtepi32_ps(dots[m][half]);
        sums[m][half] = _mm512_add_ps(sum, _mm512_mul_ps(dot, _mm512_mul_ps(weightScale, scale)));
      }
    }
  }
#pragma GCC unroll 6
  for (int m = 0; m < rows; m++) {
    _mm512_storeu_ps(out + m * 32, sums[m][0]);
    _mm512_storeu_ps(out + m * 32 + 16, sums[m][1]);
  }
}

template <PanelFormat format>
void multiplyPanel(const uint8_t* panel, int64_t groupCount, const Activations& activations, int64_t rowStart,
                   int64_t rowCount, LinearTuning tuning, float* out) {
  const int64_t most = tuning.rowsAtOnce;
  while (rowCount > 0) {
    // A rest of one or two rows is slow: 4 + 4 is quicker than 6 + 2.
    const int64_t passes = (rowCount + most - 1) / most;
    const int64_t rows = passes > 2 ? most : (rowCount + passes - 1) / passes;
    const int64_t ahead = tuning.prefetchGroups;
    switch (rows) {
      case 1: multiply<format, 1>(panel, groupCount, activations, rowStart, ahead, out); break;
      case 2: multiply<format, 2>(panel, groupCount, activations, rowStart, ahead, out); break;
      case 3: multiply<format, 3>(panel, groupCount, activations, rowStart, ahead, out); break;
      case 4: multiply<format, 4>(panel, groupCount, activations, rowStart, ahead, out); break;
      case 5: multiply<format, 5>(panel, groupCount, activations, rowStart, ahead, out); break;
      default: multiply<format, 6>(panel, groupCount, activations, rowStart, ahead, out); break;
    }
    rowStart += rows;
    rowCount -= rows;
    out += rows * 32;
  }
}

}  // namespace

const PanelKernels avx512VnniPanels{{multiplyPanel<PanelFormat::Int8>, multiplyPanel<PanelFormat::Int8Centred>,
                                     multiplyPanel<PanelFormat::Int4>, multiplyPanel<PanelFormat::Int4Centred>, nullptr}};

}  // namespace variator
