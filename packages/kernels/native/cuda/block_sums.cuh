// Sums and maxima over a block in one fixed order: lanes by butterflies, then warps one after another. For kernels whose
// result must not depend on who came first.
#pragma once
#include "device.cuh"

namespace variator::cuda {

template <typename T>
DEVICE T warpSum(T value) {
#pragma unroll
  for (uint32_t mask = 16; mask > 0; mask /= 2) value += shuffleXor(value, mask);
  return value;
}

DEVICE float warpMost(float value) {
#pragma unroll
  for (uint32_t mask = 16; mask > 0; mask /= 2) {
    const float other = shuffleXor(value, mask);
    value = other > value ? other : value;
  }
  return value;
}

// `spare` is shared memory for one number a warp; every thread of the block calls it and receives the same bits.
template <typename T>
DEVICE T blockSum(T value, T* spare) {
  value = warpSum(value);
  syncThreads();
  if (lane() == 0) spare[warp()] = value;
  syncThreads();
  T sum = spare[0];
  const uint32_t count = threadCount() / 32;
  for (uint32_t i = 1; i < count; i++) sum += spare[i];
  return sum;
}

DEVICE float blockMost(float value, float* spare) {
  value = warpMost(value);
  syncThreads();
  if (lane() == 0) spare[warp()] = value;
  syncThreads();
  float most = spare[0];
  const uint32_t count = threadCount() / 32;
  for (uint32_t i = 1; i < count; i++) most = spare[i] > most ? spare[i] : most;
  return most;
}

}  // namespace variator::cuda
