// The host's side of linear_quantised.h, for checks: a matrix rounded to codes, and what its codes stand for.
#include <algorithm>
#include <cmath>

#include "float8_values.h"
#include "linear_quantised.h"

namespace variator::cuda {
namespace {

constexpr float mostE4m3 = 448;

// Where a column's code lies among its row's.
int64_t fp8Place(int64_t column) {
  const int64_t pair = column % 16 / 2;
  return column / 16 * 16 + pair % 4 * 4 + pair / 4 * 2 + column % 2;
}
// In nibbles.
int64_t int4Place(int64_t column) {
  const int64_t pair = column % 32 / 2;
  return column / 32 * 32 + pair % 4 * 8 + pair / 4 + column % 2 * 4;
}

}  // namespace

Fp8Codes roundToFp8(const std::vector<float>& weight, int32_t rows, int32_t columns) {
  Fp8Codes result;
  result.codes.resize(weight.size());
  for (int64_t r = 0; r < rows; r++) {
    const float* row = weight.data() + r * columns;
    float most = 0;
    for (int64_t k = 0; k < columns; k++) most = std::max(most, std::abs(row[k]));
    const float scale = most > 0 ? most / mostE4m3 : 1;
    result.scales.push_back(scale);
    for (int64_t k = 0; k < columns; k++) result.codes[r * columns + fp8Place(k)] = toE4m3(row[k] / scale);
  }
  return result;
}

Int4Codes roundToInt4(const std::vector<float>& weight, int32_t rows, int32_t columns) {
  Int4Codes result;
  result.codes.resize(weight.size() / 8, 0);
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t first = 0; first < columns; first += int4GroupColumns) {
      const int64_t end = std::min<int64_t>(columns, first + int4GroupColumns);
      const float* row = weight.data() + r * columns;
      float most = 0;
      for (int64_t k = first; k < end; k++) most = std::max(most, std::abs(row[k]));
      const float scale = most > 0 ? most / 7 : 1;
      result.scales.push_back(scale);
      for (int64_t k = first; k < end; k++) {
        const auto code = static_cast<uint32_t>(std::clamp(static_cast<int>(std::nearbyint(row[k] / scale)), -8, 7) + 8);
        const int64_t place = r * columns + int4Place(k);
        result.codes[place / 8] |= code << 4 * (place % 8);
      }
    }
  }
  return result;
}

std::vector<float> valuesOf(const Fp8Codes& codes, int32_t rows, int32_t columns) {
  std::vector<float> values;
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t k = 0; k < columns; k++) values.push_back(fromE4m3(codes.codes[r * columns + fp8Place(k)]) * codes.scales[r]);
  }
  return values;
}

std::vector<float> valuesOf(const Int4Codes& codes, int32_t rows, int32_t columns) {
  std::vector<float> values;
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t k = 0; k < columns; k++) {
      const int64_t place = r * columns + int4Place(k);
      const auto code = static_cast<int>(codes.codes[place / 8] >> 4 * (place % 8) & 15);
      values.push_back(static_cast<float>(code - 8) * codes.scales[r * int4GroupsOf(columns) + k / int4GroupColumns]);
    }
  }
  return values;
}

}  // namespace variator::cuda
