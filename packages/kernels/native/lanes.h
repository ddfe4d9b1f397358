// Sixteen float32 lanes by the compiler's vector extension: element for element the same arithmetic whatever the
// machine's registers are, so that every tier gives equal bits (no contraction into fused multiply-adds: see build.mjs).
// Included only by files that are compiled once a tier; everything here is static.
#pragma once
#include <cstdint>

namespace {

typedef float Lanes __attribute__((vector_size(64)));
typedef int32_t IntLanes __attribute__((vector_size(64)));
typedef float UnalignedLanes __attribute__((vector_size(64), aligned(4), may_alias));
#define VARIATOR_INLINE static inline __attribute__((always_inline))

VARIATOR_INLINE Lanes load(const float* from) { return *reinterpret_cast<const UnalignedLanes*>(from); }
VARIATOR_INLINE void store(float* to, Lanes value) { *reinterpret_cast<UnalignedLanes*>(to) = value; }
VARIATOR_INLINE Lanes fill(float value) { return value - Lanes{}; }

typedef uint8_t Bytes __attribute__((vector_size(16)));
typedef uint16_t WideBytes __attribute__((vector_size(32)));

// In two steps: compilers make vector code of a conversion that doubles the width, not of one that quadruples it.
VARIATOR_INLINE Lanes lanesOf(Bytes bytes) {
  return __builtin_convertvector(__builtin_convertvector(__builtin_convertvector(bytes, WideBytes), IntLanes), Lanes);
}

// The low eight bits of whole numbers.
VARIATOR_INLINE Bytes bytesOf(Lanes whole) {
  return __builtin_convertvector(__builtin_convertvector(__builtin_convertvector(whole, IntLanes), WideBytes), Bytes);
}

// One fixed tree: 16 -> 8 -> 4 -> 2 -> 1.
VARIATOR_INLINE float sumOf(Lanes value) {
  float lane[16];
  store(lane, value);
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; i++) lane[i] += lane[i + width];
  }
  return lane[0];
}

VARIATOR_INLINE Lanes maxOf(Lanes a, Lanes b) { return a > b ? a : b; }

VARIATOR_INLINE float maxOf(Lanes value) {
  float lane[16];
  store(lane, value);
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; i++) lane[i] = lane[i] > lane[i + width] ? lane[i] : lane[i + width];
  }
  return lane[0];
}

// Nearest whole number, ties to even, for |value| < 2^22.
VARIATOR_INLINE Lanes nearest(Lanes value) {
  const Lanes magic = fill(12582912.0f);
  return (value + magic) - magic;
}

// e^x within two units in the last place for x in [-87, 88], clamped outside. Cephes' expf polynomial.
VARIATOR_INLINE Lanes exponential(Lanes x) {
  const Lanes least = fill(-87.0f), most = fill(88.0f);
  x = x < least ? least : x;
  x = x > most ? most : x;
  const Lanes power = nearest(x * 1.44269504088896341f);
  const Lanes rest = (x - power * 0.693359375f) - power * -2.12194440e-4f;
  Lanes value = fill(1.9875691500e-4f);
  value = value * rest + 1.3981999507e-3f;
  value = value * rest + 8.3334519073e-3f;
  value = value * rest + 4.1665795894e-2f;
  value = value * rest + 1.6666665459e-1f;
  value = value * rest + 5.0000001201e-1f;
  value = value * rest * rest + rest + 1.0f;
  const IntLanes exponent = (__builtin_convertvector(power, IntLanes) + 127) << 23;
  return value * (Lanes)exponent;
}

}  // namespace
