// e4m3 in plain C++ for packers and checks: sign, 4 bits of exponent (bias 7), 3 of fraction, no infinities, +-448 at most
// (Micikevicius et al., "FP8 formats for deep learning", 2022). To nearest, ties to even; beyond 448 it stays at 448.
#pragma once
#include <cmath>
#include <cstdint>

namespace variator::cuda {

inline float fromE4m3(uint8_t bits) {
  const int exponent = bits >> 3 & 15, fraction = bits & 7;
  if ((bits & 127) == 127) return NAN;
  const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -9)
                                        : std::ldexp(static_cast<float>(8 + fraction), exponent - 10);
  return bits & 128 ? -magnitude : magnitude;
}

inline uint8_t toE4m3(float value) {
  if (std::isnan(value)) return 127;
  const auto sign = static_cast<uint8_t>(std::signbit(value) ? 128 : 0);
  const float magnitude = std::fmin(std::fabs(value), 448.0f);
  if (magnitude == 0) return sign;
  int exponent;
  std::frexp(magnitude, &exponent);
  // Steps of 2^-3 of the leading bit, no finer than 2^-9.
  const int step = exponent - 4 > -9 ? exponent - 4 : -9;
  const auto units = static_cast<int>(std::nearbyint(std::ldexp(magnitude, -step)));
  // Normal: units 8..16 at this exponent; 16 carries into the next one by itself. Subnormal: units 0..8 at exponent 0.
  const int code = step == -9 ? units : (step + 9) * 8 + units;
  return static_cast<uint8_t>(sign | code);
}

}  // namespace variator::cuda
