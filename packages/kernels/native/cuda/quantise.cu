// quantiseToFp8 and quantiseToInt4 of linear_quantised.h: a block a row, a half warp a group of 128 columns. Each value is
// divided by the scale as the host's version does, so that both give the same codes.
#include <algorithm>
#include <cmath>

#include "../native_fault.h"
#include "block_sums.cuh"
#include "linear_quantised.h"

namespace variator::cuda {
namespace {

constexpr int rowThreads = 128, groupThreads = 128;
constexpr float mostE4m3 = 448;

struct Fp8Arguments {
  const Bf16* from;
  uint8_t* codes;
  float* scales;
  int32_t columns;
};

KERNEL(rowThreads) void quantiseRow(const Fp8Arguments a) {
  float* spare = reinterpret_cast<float*>(sharedMemory());
  const int64_t row = blockIndex().x;
  const Bf16* from = a.from + row * a.columns;
  float most = 0;
  for (int32_t at = 8 * static_cast<int32_t>(thread()); at < a.columns; at += 8 * rowThreads) {
    const Bytes16 eight = load16(from + at);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float left = fabsf(lowOf(eight.words[i])), right = fabsf(highOf(eight.words[i]));
      most = left > most ? left : most;
      most = right > most ? right : most;
    }
  }
  most = blockMost(most, spare);
  const float scale = most > 0 ? most / mostE4m3 : 1.0f;
  if (thread() == 0) a.scales[row] = scale;
  for (int32_t at = 16 * static_cast<int32_t>(thread()); at < a.columns; at += 16 * rowThreads) {
    const Bytes16 first = load16(from + at), second = load16(from + at + 8);
    Bytes16 codes;
#pragma unroll
    for (int t = 0; t < 4; t++) {
      codes.words[t] = e4m3OfTwo(lowOf(first.words[t]) / scale, highOf(first.words[t]) / scale) |
                       e4m3OfTwo(lowOf(second.words[t]) / scale, highOf(second.words[t]) / scale) << 16;
    }
    store16(a.codes + row * a.columns + at, codes);
  }
}

struct Int4Arguments {
  const Bf16* from;
  uint32_t* codes;
  float* scales;
  int32_t rows, columns;
};

DEVICE uint32_t codeOf(float value, float scale) {
  const float steps = rintf(value / scale);
  return static_cast<uint32_t>(static_cast<int32_t>(steps < -8 ? -8.0f : steps > 7 ? 7.0f : steps) + 8);
}

KERNEL(groupThreads) void quantiseGroups(const Int4Arguments a) {
  const int32_t groups = int4GroupsOf(a.columns);
  const int64_t index = (int64_t{blockIndex().x} * groupThreads + thread()) / 16, row = index / groups;
  const int32_t word = static_cast<int32_t>(lane()) % 16, first = static_cast<int32_t>(index % groups) * int4GroupColumns + word / 4 * 32;
  const bool isThere = row < a.rows && first < a.columns;
  uint32_t pairs[4] = {0, 0, 0, 0};
  float most = 0;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if (isThere) pairs[i] = *reinterpret_cast<const uint32_t*>(a.from + row * a.columns + first + 2 * (word % 4) + 8 * i);
    const float left = fabsf(lowOf(pairs[i])), right = fabsf(highOf(pairs[i]));
    most = left > most ? left : most;
    most = right > most ? right : most;
  }
#pragma unroll
  for (uint32_t mask = 8; mask > 0; mask /= 2) {
    const float other = shuffleXor(most, mask);
    most = other > most ? other : most;
  }
  if (!isThere) return;
  const float scale = most > 0 ? most / 7 : 1.0f;
  if (word == 0) a.scales[index] = scale;
  uint32_t codes = 0;
#pragma unroll
  for (int i = 0; i < 4; i++) codes |= codeOf(lowOf(pairs[i]), scale) << 4 * i | codeOf(highOf(pairs[i]), scale) << 4 * (i + 4);
  a.codes[(row * a.columns + first) / 8 + word % 4] = codes;
}

}  // namespace

void quantiseToFp8(const Bf16* from, int32_t rows, int32_t columns, uint8_t* codes, float* scales, Stream stream) {
  if (columns % fp8ColumnStep != 0) throw NativeFault("quantiseToFp8: columns must be a multiple of 16");
  launch("quantiseToFp8", quantiseRow, {{static_cast<uint32_t>(rows)}, {rowThreads}, rowThreads / 32 * 4}, stream, Fp8Arguments{from, codes, scales, columns});
}

void quantiseToInt4(const Bf16* from, int32_t rows, int32_t columns, uint32_t* codes, float* scales, Stream stream) {
  if (columns % int4ColumnStep != 0) throw NativeFault("quantiseToInt4: columns must be a multiple of 32");
  const auto blocks = static_cast<uint32_t>(ceilDivide(int64_t{rows} * int4GroupsOf(columns) * 16, groupThreads));
  launch("quantiseToInt4", quantiseGroups, {{blocks}, {groupThreads}}, stream, Int4Arguments{from, codes, scales, rows, columns});
}

}  // namespace variator::cuda
