// Rows of quantised blocks (GGUF's) as float32. Included by float_ops.cc alone, once a tier; everything here is static.
// Each weight is computed as ggml's plain C does it, in the same order, so that the bits are the same.
#pragma once
#include "half.h"
#include "lanes.h"
#include "tensor.h"

namespace {

VARIATOR_INLINE uint16_t halfAt(const uint8_t* from) {
  uint16_t half;
  __builtin_memcpy(&half, from, 2);
  return half;
}

VARIATOR_INLINE float scaleAt(const uint8_t* from) { return variator::floatFromHalf(halfAt(from)); }

VARIATOR_INLINE Bytes bytesAt(const uint8_t* from) {
  Bytes bytes;
  __builtin_memcpy(&bytes, from, 16);
  return bytes;
}

// Sixteen bits of a word, each as the fifth bit (16) of a code.
VARIATOR_INLINE Bytes fifthBits(uint32_t bits) {
  uint8_t spread[16];
  for (int i = 0; i < 16; i++) spread[i] = static_cast<uint8_t>((bits >> i & 1) << 4);
  return bytesAt(spread);
}

// Q5_0 and Q5_1: 4 bytes of fifth bits, then 16 bytes of nibbles: low ones are weights 0..15, high ones 16..31.
VARIATOR_INLINE void fiveBitCodes(const uint8_t* from, Lanes& low, Lanes& high) {
  uint32_t bits;
  __builtin_memcpy(&bits, from, 4);
  low = lanesOf((bytesAt(from + 4) & 15) | fifthBits(bits));
  high = lanesOf((bytesAt(from + 4) >> 4) | fifthBits(bits >> 16));
}

// Q4_K and Q5_K: half scale, half scale of minimums, 8 x 6-bit scale and minimum, for Q5_K 32 bytes of fifth bits, then
// 128 bytes of nibbles: of each 32 bytes the low ones are a sub-block of 32 weights, the high ones the next.
VARIATOR_INLINE void fourBitSuperBlock(const uint8_t* block, bool isFiveBit, float* out) {
  const float scale = scaleAt(block), minimumScale = scaleAt(block + 2);
  const uint8_t* fifths = block + 16;
  const uint8_t* nibbles = block + (isFiveBit ? 48 : 16);
  for (int sub = 0; sub < 8; sub++) {
    const variator::SubBlock codes = variator::subBlockOf(block + 4, sub);
    const float factor = scale * codes.scale, minimum = minimumScale * codes.minimum;
    for (int half = 0; half < 32; half += 16) {
      const Bytes pair = bytesAt(nibbles + sub / 2 * 32 + half);
      Bytes code = sub % 2 == 0 ? pair & 15 : pair >> 4;
      if (isFiveBit) code |= (bytesAt(fifths + half) >> static_cast<uint8_t>(sub) & 1) << 4;
      store(out + sub * 32 + half, factor * lanesOf(code) - minimum);
    }
  }
}

// Q6_K: two halves of 128 weights, each 64 bytes of nibbles and 32 bytes of upper bit pairs; 16 int8 scales, half scale.
VARIATOR_INLINE void sixBitSuperBlock(const uint8_t* block, float* out) {
  const float scale = scaleAt(block + 208);
  for (int i = 0; i < 256; i += 16) {
    const int half = i / 128, quarter = i % 128 / 32, column = i % 32;
    const Bytes pair = bytesAt(block + half * 64 + quarter % 2 * 32 + column);
    const Bytes upper = bytesAt(block + 128 + half * 32 + column) >> static_cast<uint8_t>(2 * quarter) & 3;
    const float factor = scale * static_cast<float>(static_cast<int8_t>(block[192 + i / 16]));
    store(out + i, factor * (lanesOf((quarter < 2 ? pair & 15 : pair >> 4) | upper << 4) - 32.0f));
  }
}

}  // namespace
