// linear.int8-generic: the int8 panels in portable C++, for machines without AVX-512 VNNI. Compiled once a tier (the
// same bits from each); called by step.cc.
#include "half.h"
#include "int8_panels.h"

namespace variator {
namespace VARIATOR_TIER {
namespace {

void multiply(const uint8_t* panel, int64_t groupCount, const Activations& activations, int64_t rowStart,
              int64_t rowCount, float* out) {
  __builtin_memset(out, 0, static_cast<size_t>(rowCount) * 32 * sizeof(float));
  const int64_t groupStride = activations.stride / 32;
  for (int64_t g = 0; g < groupCount; g++, panel += groupBytes) {
    float scales[32], minimums[32];
    int16_t codes[32][32];  // [column][row]
    for (int r = 0; r < 32; r++) {
      uint16_t scale, minimum;
      __builtin_memcpy(&scale, panel + scaleOffset + r * 2, 2);
      __builtin_memcpy(&minimum, panel + minimumOffset + r * 2, 2);
      scales[r] = floatFromHalf(scale);
      minimums[r] = floatFromHalf(minimum);
    }
    for (int k = 0; k < 8; k++) {
      for (int r = 0; r < 32; r++) {
        for (int j = 0; j < 4; j++) codes[k * 4 + j][r] = panel[k * 128 + r * 4 + j];
      }
    }
    for (int64_t m = 0; m < rowCount; m++) {
      const int64_t row = rowStart + m;
      const int8_t* others = activations.codes + row * activations.stride + g * 32;
      int32_t dots[32]{};
      for (int k = 0; k < 32; k++) {
        const int16_t other = others[k];
        for (int r = 0; r < 32; r++) dots[r] += codes[k][r] * other;
      }
      const float scale = activations.scales[row * groupStride + g];
      const float scaledSum = activations.scaledSums[row * groupStride + g];
      float* sums = out + m * 32;
      for (int r = 0; r < 32; r++) {
        sums[r] += static_cast<float>(dots[r]) * (scales[r] * scale) + minimums[r] * scaledSum;
      }
    }
  }
}

}  // namespace

extern const Int8PanelFunction int8PanelGeneric = multiply;

}  // namespace VARIATOR_TIER
}  // namespace variator
