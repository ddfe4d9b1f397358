// bfloat16 as a type of its own, and plain rows of bits, alike for device and host. Used by every kernel and every check.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define VARIATOR_EVERYWHERE __host__ __device__ __forceinline__
#else
#define VARIATOR_EVERYWHERE inline
#endif

namespace variator::cuda {

struct Bf16 {
  uint16_t bits;
};

struct alignas(16) Bytes16 {
  uint32_t words[4];
};

VARIATOR_EVERYWHERE float floatOfBits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

VARIATOR_EVERYWHERE uint32_t bitsOf(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}

VARIATOR_EVERYWHERE float toFloat(Bf16 value) { return floatOfBits(static_cast<uint32_t>(value.bits) << 16); }

// To nearest, ties to even; what is not a number stays none.
VARIATOR_EVERYWHERE Bf16 toBf16(float value) {
  const uint32_t bits = bitsOf(value);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return {static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? bits >> 16 | 0x40u : rounded)};
}

// Two neighbours in a word, the first in the low half.
VARIATOR_EVERYWHERE float lowOf(uint32_t pair) { return floatOfBits(pair << 16); }
VARIATOR_EVERYWHERE float highOf(uint32_t pair) { return floatOfBits(pair & 0xffff0000u); }
VARIATOR_EVERYWHERE uint32_t pairOf(float low, float high) {
  return static_cast<uint32_t>(toBf16(low).bits) | static_cast<uint32_t>(toBf16(high).bits) << 16;
}

VARIATOR_EVERYWHERE int64_t ceilDivide(int64_t count, int64_t by) { return (count + by - 1) / by; }

}  // namespace variator::cuda
