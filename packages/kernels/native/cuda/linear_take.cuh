// Where a linear layer's sums go, for every kernel of linear.h: kept in one place, so that all round alike.
#pragma once
#include "device.cuh"
#include "linear.h"

namespace variator::cuda {

// One result: row of x, index of the result.
DEVICE void takeOne(const LinearArguments& a, int64_t row, int64_t output, float sum) {
  const int64_t at = row * a.rows + output;
  if (a.take == Take::AsBf16) {
    static_cast<Bf16*>(a.out)[at] = toBf16(sum);
  } else {
    float* out = static_cast<float*>(a.out) + at;
    *out = a.take == Take::AsFloat ? sum : addRounded(*out, sum);
  }
}

// Four neighbours of a row, a.rows a multiple of 4.
DEVICE void takeFour(const LinearArguments& a, int64_t row, int64_t output, const float (&sums)[4]) {
  const int64_t at = row * a.rows + output;
  if (a.take == Take::AsBf16) {
    uint32_t* out = reinterpret_cast<uint32_t*>(static_cast<Bf16*>(a.out) + at);
    out[0] = pairOf(sums[0], sums[1]);
    out[1] = pairOf(sums[2], sums[3]);
    return;
  }
  float* out = static_cast<float*>(a.out) + at;
  Bytes16 result{{bitsOf(sums[0]), bitsOf(sums[1]), bitsOf(sums[2]), bitsOf(sums[3])}};
  if (a.take == Take::AddToResidual) {
    const Bytes16 before = load16(out);
#pragma unroll
    for (int i = 0; i < 4; i++) result.words[i] = bitsOf(addRounded(floatOfBits(before.words[i]), sums[i]));
  }
  store16(out, result);
}

}  // namespace variator::cuda
