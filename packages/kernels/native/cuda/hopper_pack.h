// Registers to shared memory and bf16 in the shapes that the sm_90a kernels need: two floats to a word of two bf16, words
// and pairs of words to shared memory. Rounds as formats.h does (to nearest, ties to even).
#pragma once
#include "device.cuh"

namespace variator::cuda::hopper {

#if !defined(__CUDACC__)

inline uint32_t packPair(float low, float high) { return pairOf(low, high); }
inline void storeWord(void* to, uint32_t word) {
  emulated::requireAligned(to, 4, "storeWord");
  std::memcpy(to, &word, 4);
}
inline void storePair(void* to, uint32_t low, uint32_t high) {
  emulated::requireAligned(to, 8, "storePair");
  std::memcpy(to, &low, 4);
  std::memcpy(static_cast<uint8_t*>(to) + 4, &high, 4);
}

#else

DEVICE uint32_t packPair(float low, float high) {
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}
DEVICE void storeWord(void* to, uint32_t word) { *static_cast<uint32_t*>(to) = word; }
DEVICE void storePair(void* to, uint32_t low, uint32_t high) { *static_cast<uint2*>(to) = make_uint2(low, high); }

#endif

}  // namespace variator::cuda::hopper
