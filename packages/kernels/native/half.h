// IEEE half precision and bfloat16 to float32 and back, by bits: the same on every machine. Used by the readers of
// quantised blocks and by the packer; static, so that each translation unit keeps its own copy.
#pragma once
#include <cstdint>
#include <cstring>

namespace variator {

static inline float floatFromBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

static inline uint32_t bitsOfFloat(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

static inline float floatFromBf16(uint16_t half) { return floatFromBits(static_cast<uint32_t>(half) << 16); }

// To nearest, ties to even; what is not a number stays none.
static inline uint16_t bf16FromFloat(float value) {
  const uint32_t bits = bitsOfFloat(value);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? bits >> 16 | 0x40u : rounded);
}

// Without branches, so that loops over it become vector code. The multiplication by 2^112 is exact.
static inline float floatFromHalf(uint16_t half) {
  const float magnitude = floatFromBits(static_cast<uint32_t>(half & 0x7fffu) << 13) * 5.192296858534828e33f;
  const uint32_t special = (half & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u;
  return floatFromBits(bitsOfFloat(magnitude) | special | static_cast<uint32_t>(half & 0x8000u) << 16);
}

// Rounds to nearest, ties to even; overflows to infinity.
static inline uint16_t halfFromFloat(float value) {
  const uint32_t bits = bitsOfFloat(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7e00u;
  if (magnitude >= 0x477ff000u) return sign | 0x7c00u;
  if (magnitude < 0x38800000u) {  // below 2^-14: a subnormal half; the float addition does the rounding
    const float shifted = floatFromBits(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (bitsOfFloat(shifted) - 0x3f000000u));
  }
  const uint32_t odd = (magnitude >> 13) & 1u;
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

}  // namespace variator
