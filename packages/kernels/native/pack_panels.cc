// Packs weight matrices into panels (panels.h draws the layout). Called by PackedModel, once a model and family.
#include "panels.h"

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
  if ((half & 0x7c00u) == 0x7c00u) throw NativeFault("a weight is not a number that panels can hold");
  return half;
}

uint16_t halfAt(const uint8_t* from) {
  uint16_t half;
  std::memcpy(&half, from, 2);
  return half;
}

// Codes from 0 to `mostCode` against scale and minimum as they are kept; returns the squared error.
float roundTo(const float* weights, float mostCode, float least, float most, Group& group) {
  group.minimum = checkedHalf(least);
  const float minimum = floatFromHalf(group.minimum);
  group.scale = checkedHalf(std::max(0.0f, most - minimum) / mostCode);
  const float scale = floatFromHalf(group.scale);
  float error = 0;
  for (int i = 0; i < 32; i++) {
    const float code = scale > 0 ? std::nearbyint((weights[i] - minimum) / scale) : 0.0f;
    group.codes[i] = static_cast<uint8_t>(std::clamp(code, 0.0f, mostCode));
    const float rest = scale * group.codes[i] + minimum - weights[i];
    error += rest * rest;
  }
  return error;
}

// 256 steps from the least to the largest weight; or 16 steps over the part of that range that fits the group best.
Group groupOfFloats(const float* weights, bool isFourBit) {
  const auto [least, most] = std::minmax_element(weights, weights + 32);
  if (!std::isfinite(*least) || !std::isfinite(*most)) throw NativeFault("a weight is not a finite number");
  Group best{};
  float leastError = roundTo(weights, isFourBit ? 15.0f : 255.0f, *least, *most, best);
  if (!isFourBit) return best;
  for (const float low : {0.0f, 0.05f, 0.1f}) {
    for (const float high : {0.0f, 0.05f, 0.1f}) {
      Group group{};
      const float range = *most - *least;
      const float error = roundTo(weights, 15.0f, *least + low * range, *most - high * range, group);
      if (error >= leastError) continue;
      leastError = error;
      best = group;
    }
  }
  return best;
}

// Codes of 4 or 5 bits: low nibbles are weights 0..15, high ones 16..31; `fifths` holds a bit each, where there are any.
void placeCodes(const uint8_t* nibbles, uint32_t fifths, Group& group) {
  for (int i = 0; i < 16; i++) {
    group.codes[i] = static_cast<uint8_t>((nibbles[i] & 15) | (fifths >> i & 1) << 4);
    group.codes[i + 16] = static_cast<uint8_t>(nibbles[i] >> 4 | (fifths >> (i + 16) & 1) << 4);
  }
}

uint32_t wordAt(const uint8_t* from) {
  uint32_t word;
  std::memcpy(&word, from, 4);
  return word;
}

Group groupOfBlock(const uint8_t* block, Dtype dtype) {
  Group group{};
  const float scale = floatFromHalf(halfAt(block));
  group.scale = checkedHalf(scale);
  switch (dtype) {
    case Dtype::Q8_0:  // centred
      for (int i = 0; i < 32; i++) group.codes[i] = static_cast<uint8_t>(block[2 + i] ^ 0x80u);
      break;
    case Dtype::Q4_0:
      placeCodes(block + 2, 0, group);
      group.minimum = checkedHalf(-8.0f * scale);
      break;
    case Dtype::Q4_1:
      placeCodes(block + 4, 0, group);
      group.minimum = halfAt(block + 2);
      break;
    case Dtype::Q5_0:
      placeCodes(block + 6, wordAt(block + 2), group);
      group.minimum = checkedHalf(-16.0f * scale);
      break;
    case Dtype::Q5_1:
      placeCodes(block + 8, wordAt(block + 4), group);
      group.minimum = halfAt(block + 2);
      break;
    default:
      throw NativeFault("a dtype whose blocks are not groups of 32");
  }
  return group;
}

// A sub-block of Q4_K or Q5_K: its own codes, its scale and minimum rounded to half precision.
Group groupOfSubBlock(const uint8_t* block, bool isFiveBit, int sub) {
  Group group{};
  const SubBlock codes = subBlockOf(block + 4, sub);
  group.scale = checkedHalf(floatFromHalf(halfAt(block)) * codes.scale);
  group.minimum = checkedHalf(-(floatFromHalf(halfAt(block + 2)) * codes.minimum));
  const uint8_t* nibbles = block + (isFiveBit ? 48 : 16) + sub / 2 * 32;
  for (int i = 0; i < 32; i++) {
    const int fifth = isFiveBit ? block[16 + i] >> sub & 1 : 0;
    group.codes[i] = static_cast<uint8_t>((sub % 2 == 0 ? nibbles[i] & 15 : nibbles[i] >> 4) | fifth << 4);
  }
  return group;
}

void placeGroup(const Group& group, PanelFormat format, int64_t row, uint8_t* out) {
  if (isFourBit(format)) {
    uint8_t pairs[16];
    for (int i = 0; i < 16; i++) pairs[i] = static_cast<uint8_t>(group.codes[i] | group.codes[i + 16] << 4);
    for (int k = 0; k < 4; k++) std::memcpy(out + k * 128 + row * 4, pairs + k * 4, 4);
  } else {
    for (int k = 0; k < 8; k++) std::memcpy(out + k * 128 + row * 4, group.codes + k * 4, 4);
  }
  std::memcpy(out + scaleOffsetOf(format) + row * 2, &group.scale, 2);
  if (!isCentred(format)) std::memcpy(out + minimumOffsetOf(format) + row * 2, &group.minimum, 2);
}

void packBf16(const Tensor& tensor, uint8_t* out) {
  const int64_t groupCount = groupCountOf(tensor), groupBytes = groupBytesOf(PanelFormat::Bf16);
  std::vector<float> weights(static_cast<size_t>(groupCount * 32));
  for (int64_t row = 0; row < tensor.rows; row++) {
    floatOps().dequantiseRow(tensor.row(row), tensor.dtype, tensor.columns, weights.data());
    uint8_t* panel = out + row / panelRows * groupCount * groupBytes + row % panelRows * 4;
    for (int64_t column = 0; column < tensor.columns; column++) {
      if (!std::isfinite(weights[column])) throw NativeFault("a weight is not a finite number");
      const uint16_t rounded = bf16FromFloat(weights[column]);
      std::memcpy(panel + column / 2 * 128 + column % 2 * 2, &rounded, 2);
    }
  }
}

bool liesInNibbles(Dtype dtype) { return dtype == Dtype::Q4_0 || dtype == Dtype::Q4_1 || dtype == Dtype::Q4_K; }

}  // namespace

PanelFormat panelFormatOf(Dtype dtype, PanelWidth width) {
  if (width == PanelWidth::Bf16) return PanelFormat::Bf16;
  if (width == PanelWidth::Four || (width == PanelWidth::AsStored && liesInNibbles(dtype))) {
    return dtype == Dtype::Q4_0 ? PanelFormat::Int4Centred : PanelFormat::Int4;
  }
  return dtype == Dtype::Q8_0 ? PanelFormat::Int8Centred : PanelFormat::Int8;
}

Panels packPanels(const Tensor& tensor, PanelFormat format, uint8_t* out) {
  const int64_t groupCount = groupCountOf(tensor), groupBytes = groupBytesOf(format);
  if (format == PanelFormat::Bf16) {
    packBf16(tensor, out);
    return {out, format, groupCount};
  }
  const Block block = blockOf(tensor.dtype);
  // A format with fewer steps than the tensor's own rounds its weights again.
  const bool isRounded = isFourBit(format) && !liesInNibbles(tensor.dtype);
  const bool isSuperBlock = !isRounded && (tensor.dtype == Dtype::Q4_K || tensor.dtype == Dtype::Q5_K);
  std::vector<float> weights(static_cast<size_t>(groupCount * 32));
  for (int64_t row = 0; row < tensor.rows; row++) {
    uint8_t* panel = out + row / panelRows * groupCount * groupBytes;
    const auto place = [&](int64_t g, const Group& group) {
      placeGroup(group, format, row % panelRows, panel + g * groupBytes);
    };
    if (block.weights == 32 && !isRounded) {
      for (int64_t g = 0; g < groupCount; g++) place(g, groupOfBlock(tensor.row(row) + g * block.bytes, tensor.dtype));
      continue;
    }
    if (isSuperBlock) {
      for (int64_t g = 0; g < groupCount; g++) {
        const uint8_t* from = tensor.row(row) + g / 8 * block.bytes;
        place(g, groupOfSubBlock(from, tensor.dtype == Dtype::Q5_K, static_cast<int>(g % 8)));
      }
      continue;
    }
    floatOps().dequantiseRow(tensor.row(row), tensor.dtype, tensor.columns, weights.data());
    // Columns that only fill the last group up take a weight of their own, so that they do not widen its range.
    for (int64_t i = tensor.columns; i < groupCount * 32; i++) weights[i] = weights[tensor.columns - 1];
    for (int64_t g = 0; g < groupCount; g++) place(g, groupOfFloats(weights.data() + g * 32, isFourBit(format)));
  }
  return {out, format, groupCount};
}

}  // namespace variator
