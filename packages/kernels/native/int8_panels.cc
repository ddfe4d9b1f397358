// Packs weight matrices into int8 panels (int8_panels.h draws the layout). Called once a model, by Engine::prepare.
#include "int8_panels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "half.h"
#include "native_fault.h"

namespace variator {
namespace {

struct Group {
  uint8_t codes[32];
  uint16_t scale;
  uint16_t minimum;
};

uint16_t checkedHalf(float value) {
  const uint16_t half = halfFromFloat(value);
  if ((half & 0x7c00u) == 0x7c00u) throw NativeFault("a weight is not a number that int8 panels can hold");
  return half;
}

uint16_t halfAt(const uint8_t* from) {
  uint16_t half;
  std::memcpy(&half, from, 2);
  return half;
}

// 256 steps from the least to the largest weight; the codes are taken against scale and minimum as they are kept.
Group groupOfFloats(const float* weights) {
  Group group{};
  const auto [least, most] = std::minmax_element(weights, weights + 32);
  if (!std::isfinite(*least) || !std::isfinite(*most)) throw NativeFault("a weight is not a finite number");
  group.minimum = checkedHalf(*least);
  const float minimum = floatFromHalf(group.minimum);
  group.scale = checkedHalf(std::max(0.0f, *most - minimum) / 255.0f);
  const float scale = floatFromHalf(group.scale);
  for (int i = 0; i < 32; i++) {
    const float code = scale > 0 ? std::nearbyint((weights[i] - minimum) / scale) : 0.0f;
    group.codes[i] = static_cast<uint8_t>(std::clamp(code, 0.0f, 255.0f));
  }
  return group;
}

Group groupOfBlock(const uint8_t* block, Dtype dtype) {
  Group group{};
  group.scale = halfAt(block);
  const float scale = floatFromHalf(group.scale);
  if (dtype == Dtype::Q8_0) {
    for (int i = 0; i < 32; i++) group.codes[i] = static_cast<uint8_t>(block[2 + i] ^ 0x80u);
    group.minimum = checkedHalf(-128.0f * scale);
    return group;
  }
  const uint8_t* nibbles = block + (dtype == Dtype::Q4_1 ? 4 : 2);
  for (int i = 0; i < 16; i++) {
    group.codes[i] = nibbles[i] & 15;
    group.codes[i + 16] = nibbles[i] >> 4;
  }
  group.minimum = dtype == Dtype::Q4_1 ? halfAt(block + 2) : checkedHalf(-8.0f * scale);
  return group;
}

void placeGroup(const Group& group, int64_t row, uint8_t* out) {
  for (int k = 0; k < 8; k++) std::memcpy(out + k * 128 + row * 4, group.codes + k * 4, 4);
  std::memcpy(out + scaleOffset + row * 2, &group.scale, 2);
  std::memcpy(out + minimumOffset + row * 2, &group.minimum, 2);
}

}  // namespace

void packPanels(const Tensor& tensor, uint8_t* out) {
  const int64_t groupCount = groupCountOf(tensor);
  const bool isQuantised = tensor.dtype == Dtype::Q8_0 || tensor.dtype == Dtype::Q4_0 || tensor.dtype == Dtype::Q4_1;
  std::vector<float> weights(static_cast<size_t>(groupCount * 32));
  for (int64_t row = 0; row < tensor.rows; row++) {
    uint8_t* panel = out + row / panelRows * groupCount * groupBytes;
    if (isQuantised) {
      const int64_t blockBytes = tensor.rowBytes / groupCount;
      for (int64_t g = 0; g < groupCount; g++) {
        const Group group = groupOfBlock(tensor.row(row) + g * blockBytes, tensor.dtype);
        placeGroup(group, row % panelRows, panel + g * groupBytes);
      }
      continue;
    }
    floatOps().dequantiseRow(tensor.row(row), tensor.dtype, tensor.columns, weights.data());
    // Columns that only fill the last group up take a weight of their own, so that they do not widen its range.
    for (int64_t i = tensor.columns; i < groupCount * 32; i++) weights[i] = weights[tensor.columns - 1];
    for (int64_t g = 0; g < groupCount; g++) {
      placeGroup(groupOfFloats(weights.data() + g * 32), row % panelRows, panel + g * groupBytes);
    }
  }
}

}  // namespace variator
