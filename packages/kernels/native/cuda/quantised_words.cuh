// Codes of 8 and 4 bits in registers, as linear_quantised.h lays them out in a word: two neighbours of bf16 at a time, exact.
// Used by the linear layers and the attention that read such codes.
#pragma once
#include "device.cuh"

namespace variator::cuda {

// Which two of a word's four codes, as selectBytes has them, each behind a byte of zeros.
constexpr uint32_t lowTwo = 0x1404, highTwo = 0x3424, evenTwo = 0x2404, oddTwo = 0x3414;

// Two e4m3 codes of a word. The bits of a code, moved to where bf16 has its own, stand for
// 2^-120 of it: exponents begin at 7 and at 127. The two codes that are no numbers come out as 480.
DEVICE uint32_t bf16OfE4m3(uint32_t word, uint32_t two) {
  const uint32_t bytes = selectBytes(word, 0, two);
  return multiplyBf16Pairs((bytes & 0x80008000u) | (bytes >> 4 & 0x07f007f0u), 0x7b807b80u);
}

// Of a word of eight codes of 4 bits those in nibbles i and i + 4, less 8. 0x4300 is 128 in bf16, where the last bit is 1.
DEVICE uint32_t bf16OfInt4(uint32_t word, int i) { return addBf16Pairs((word >> 4 * i & 0x000f000fu) | 0x43004300u, 0xc308c308u); }

}  // namespace variator::cuda
