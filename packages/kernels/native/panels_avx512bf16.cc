// bf16 panels by vdpbf16ps, 1 to 6 activation rows at once so that sums stay in registers. A row's pairs are summed in one
// order in every blocking. Called by step.cc, only where CPUID shows AVX-512 BF16.
#include <immintrin.h>

#include "panels.h"

namespace variator {
namespace {

template <int rows>
inline __attribute__((always_inline)) void multiply(const uint8_t* panel, int64_t groupCount,
                                                    const Activations& activations, int64_t rowStart,
                                                    int64_t prefetchGroups, float* out) {
  const uint16_t* x = activations.bf16 + rowStart * activations.stride;
  const int64_t stride = activations.stride, ahead = prefetchGroups * groupBytesOf(PanelFormat::Bf16);
  __m512 sums[rows][2];
#pragma GCC unroll 6
  for (int m = 0; m < rows; m++) sums[m][0] = sums[m][1] = _mm512_setzero_ps();
  for (int64_t pair = 0; pair < groupCount * 16; pair++, panel += 128) {
    if (rows <= 2 && ahead > 0) {
      _mm_prefetch(reinterpret_cast<const char*>(panel) + ahead, _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(panel) + ahead + 64, _MM_HINT_T0);
    }
    const __m512bh low = (__m512bh)_mm512_loadu_si512(panel), high = (__m512bh)_mm512_loadu_si512(panel + 64);
#pragma GCC unroll 6
    for (int m = 0; m < rows; m++) {
      int32_t two;
      __builtin_memcpy(&two, x + m * stride + 2 * pair, 4);
      const __m512bh other = (__m512bh)_mm512_set1_epi32(two);
      sums[m][0] = _mm512_dpbf16_ps(sums[m][0], low, other);
      sums[m][1] = _mm512_dpbf16_ps(sums[m][1], high, other);
    }
  }
#pragma GCC unroll 6
  for (int m = 0; m < rows; m++) {
    _mm512_storeu_ps(out + m * 32, sums[m][0]);
    _mm512_storeu_ps(out + m * 32 + 16, sums[m][1]);
  }
}

void multiplyPanel(const uint8_t* panel, int64_t groupCount, const Activations& activations, int64_t rowStart,
                   int64_t rowCount, LinearTuning tuning, float* out) {
  const int64_t most = tuning.rowsAtOnce, ahead = tuning.prefetchGroups;
  while (rowCount > 0) {
    const int64_t passes = (rowCount + most - 1) / most;
    const int64_t rows = passes > 2 ? most : (rowCount + passes - 1) / passes;
    switch (rows) {
      case 1: multiply<1>(panel, groupCount, activations, rowStart, ahead, out); break;
      case 2: multiply<2>(panel, groupCount, activations, rowStart, ahead, out); break;
      case 3: multiply<3>(panel, groupCount, activations, rowStart, ahead, out); break;
      case 4: multiply<4>(panel, groupCount, activations, rowStart, ahead, out); break;
      case 5: multiply<5>(panel, groupCount, activations, rowStart, ahead, out); break;
      default: multiply<6>(panel, groupCount, activations, rowStart, ahead, out); break;
    }
    rowStart += rows;
    rowCount -= rows;
    out += rows * 32;
  }
}

}  // namespace

const PanelKernels avx512Bf16Panels{{nullptr, nullptr, nullptr, nullptr, multiplyPanel}};

}  // namespace variator
