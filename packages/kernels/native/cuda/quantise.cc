// The host's side of linear_quantised.h: rounding a matrix, and what its codes stand for.
#include <algorithm>
#include <cmath>

#include "linear_quantised.h"

namespace variator::cuda {
namespace {

constexpr float mostE4m3 = 448;

// To nearest, ties to even; beyond the largest number, that.
uint8_t e4m3Of(float value) {
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  const float size = std::min(std::abs(value), mostE4m3);
  if (size < 0x1p-6f) return static_cast<uint8_t>(sign | static_cast<uint8_t>(std::nearbyint(size * 0x1p9f)));  // subnormal; 8 is the least normal one
  int exponent = 0;
  const float fraction = std::frexp(size, &exponent);  // [0.5, 1)
  auto mantissa = static_cast<int>(std::nearbyint(fraction * 16));  // 8..16
  if (mantissa == 16) {
    mantissa = 8;
    exponent++;
  }
  return static_cast<uint8_t>(sign | std::min((exponent + 6) << 3 | (mantissa - 8), 0x7e));
}

}  // namespace

Fp8Codes roundToFp8(const std::vector<float>& weight, int32_t rows, int32_t columns) {
  Fp8Codes result;
  for (int64_t r = 0; r < rows; r++) {
    float most = 0;
    for (int64_t k = 0; k < columns; k++) most = std::max(most, std::abs(weight[r * columns + k]));
    const float scale = most > 0 ? most / mostE4m3 : 1;
    result.scales.push_back(scale);
    for (int64_t k = 0; k < columns; k++) result.codes.push_back(e4m3Of(weight[r * columns + k] / scale));
  }
  return result;
}

Int4Codes roundToInt4(const std::vector<float>& weight, int32_t rows, int32_t columns) {
  Int4Codes result;
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t group = 0; group < columns; group += int4GroupColumns) {
      const float* values = weight.data() + r * columns + group;
      float most = 0;
      for (int32_t k = 0; k < int4GroupColumns; k++) most = std::max(most, std::abs(values[k]));
      const float scale = most > 0 ? most / 7 : 1;
      result.scales.push_back(scale);
      for (int32_t word = 0; word < int4GroupColumns / 8; word++) {
        uint32_t bits = 0;
        for (uint32_t e = 0; e < 8; e++) {
          const auto code = static_cast<uint32_t>(std::clamp(static_cast<int>(std::nearbyint(values[word * 8 + e] / scale)), -8, 7) + 8);
          bits |= code << 4 * (e / 2 + e % 2 * 4);
        }
        result.codes.push_back(bits);
      }
    }
  }
  return result;
}

std::vector<float> valuesOf(const Fp8Codes& codes, int32_t rows, int32_t columns) {
  std::vector<float> values;
  for (int64_t i = 0; i < int64_t{rows} * columns; i++) {
    const uint8_t code = codes.codes[i];
    const int exponent = code >> 3 & 15, mantissa = code & 7;
    const float size = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9) : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
    values.push_back((code & 0x80 ? -size : size) * codes.scales[i / columns]);
  }
  return values;
}

std::vector<float> valuesOf(const Int4Codes& codes, int32_t rows, int32_t columns) {
  std::vector<float> values;
  for (int64_t i = 0; i < int64_t{rows} * columns; i++) {
    const auto e = static_cast<uint32_t>(i % 8);
    const auto code = static_cast<int>(codes.codes[i / 8] >> 4 * (e / 2 + e % 2 * 4) & 15);
    values.push_back(static_cast<float>(code - 8) * codes.scales[i / int4GroupColumns]);
  }
  return values;
}

}  // namespace variator::cuda
