// The kernel of linearByMma (linear.h) for weights of any format. The matrix is the 16-row side of mma.m16n8k16 and the rows
// of x its 8-column side, at every size, and each sum takes the columns 16 by 16 in their order into one accumulator: so a
// row's bits are the same in a tile of 8 rows and in one of 128. Both operands come through a ring of cp.async stages:
//   stage: [outputs] rows of 64 columns of weights, [tokens] rows of 64 columns of x (128 bytes)
// 16-byte chunks lie swizzled within every 128 bytes, so that neither the copies nor ldmatrix meet a bank twice. Weights of
// fewer bits become bf16 in registers, which holds each of their numbers; their layout (linear_quantised.h) gives every
// lane by one ldmatrix what its fragments hold. Used by linear_mma.cu, linear_mma_fp8.cu and linear_mma_int4.cu, which instantiate it.
#pragma once
#include <string>

#include "../native_fault.h"
#include "linear_quantised.h"
#include "linear_take.cuh"
#include "quantised_words.cuh"

namespace variator::cuda {

constexpr int mmaDepth = 64;  // columns of a stage
constexpr int mmaXBytes = mmaDepth * 2;

// Chunk `chunk` of row `row`, in rows of `rowBytes`: 32, 64 or 128.
template <int rowBytes>
DEVICE uint8_t* mmaChunkAt(uint8_t* rows, int row, int chunk) {
  constexpr int chunks = rowBytes / 16;
  return rows + row * rowBytes + ((chunk ^ (row / (8 / chunks) % chunks)) * 16);
}

// What a format says: bytes of 64 columns; where a row's bytes begin; a fragment's 16 rows by 16 columns as bf16 for step k of
// four (`raw` is what was loaded last); and how sums become results: by a scale a row, or a scale a row and group of columns.
struct MmaBf16 {
  static constexpr int rowBytes = 128, groupStages = 0;
  const Bf16* weight;
  DEVICE const void* at(int64_t row, int32_t column, int32_t columns) const { return weight + row * columns + column; }
  DEVICE void fragment(uint32_t (&left)[4], uint32_t (&)[4], uint8_t* weights, int firstRow, int k) const {
    loadMatrix4(left, mmaChunkAt<rowBytes>(weights, firstRow + static_cast<int>(lane()) % 16, 2 * k + static_cast<int>(lane()) / 16));
  }
  DEVICE float rowScale(int64_t) const { return 1; }
  DEVICE float groupScale(int64_t, int32_t, int32_t) const { return 1; }
};

struct MmaFp8 {
  static constexpr int rowBytes = 64, groupStages = 0;
  Fp8Matrix matrix;
  DEVICE const void* at(int64_t row, int32_t column, int32_t columns) const { return matrix.codes + row * columns + column; }
  DEVICE void fragment(uint32_t (&left)[4], uint32_t (&raw)[4], uint8_t* weights, int firstRow, int k) const {
    if (k % 2 == 0) loadMatrix4(raw, mmaChunkAt<rowBytes>(weights, firstRow + static_cast<int>(lane()) % 16, k + static_cast<int>(lane()) / 16));
    const int of = k % 2 * 2;
    left[0] = bf16OfE4m3(raw[of], lowTwo);
    left[1] = bf16OfE4m3(raw[of + 1], lowTwo);
    left[2] = bf16OfE4m3(raw[of], highTwo);
    left[3] = bf16OfE4m3(raw[of + 1], highTwo);
  }
  DEVICE float rowScale(int64_t row) const { return matrix.scales[row]; }
  DEVICE float groupScale(int64_t, int32_t, int32_t) const { return 1; }
};

struct MmaInt4 {
  static constexpr int rowBytes = 32, groupStages = int4GroupColumns / mmaDepth;
  Int4Matrix matrix;
  DEVICE const void* at(int64_t row, int32_t column, int32_t columns) const { return matrix.codes + (row * columns + column) / 8; }
  DEVICE void fragment(uint32_t (&left)[4], uint32_t (&raw)[4], uint8_t* weights, int firstRow, int k) const {
    if (k == 0) loadMatrix4(raw, mmaChunkAt<rowBytes>(weights, firstRow + static_cast<int>(lane()) % 16, static_cast<int>(lane()) / 16));
    const int of = k / 2 * 2, pair = k % 2 * 2;
    left[0] = bf16OfInt4(raw[of], pair);
    left[1] = bf16OfInt4(raw[of + 1], pair);
    left[2] = bf16OfInt4(raw[of], pair + 1);
    left[3] = bf16OfInt4(raw[of + 1], pair + 1);
  }
  DEVICE float rowScale(int64_t) const { return 1; }
  DEVICE float groupScale(int64_t row, int32_t column, int32_t columns) const {
    return matrix.scales[row * int4GroupsOf(columns) + column / int4GroupColumns];
  }
};

template <typename Format, int outputs, int tokens, int stages, int warpsDown, int warpsAcross>
struct Mma {
  static constexpr int threads = 32 * warpsDown * warpsAcross;
  static constexpr int xAt = outputs * Format::rowBytes, stageBytes = xAt + tokens * mmaXBytes;
  static constexpr int stagedStride = outputs + 4;  // floats of a token's results in shared memory
  static constexpr int64_t ringBytes = int64_t{stages} * stageBytes;
  static constexpr int64_t resultBytes = int64_t{tokens} * stagedStride * 4;
  static constexpr int64_t sharedBytes = ringBytes > resultBytes ? ringBytes : resultBytes;
  static constexpr int down = outputs / warpsDown / 16, across = tokens / warpsAcross / 8;  // fragments of a warp
  static_assert(down >= 1 && across >= 1 && outputs % (16 * warpsDown) == 0 && tokens % (8 * warpsAcross) == 0);
};

// Rows beyond the last are zeros, and so are columns: whatever a zero code stands for, it is multiplied with a zero of x.
template <typename Format, int rowCount, int threads>
DEVICE void mmaCopyRows(const Format& format, uint8_t* to, int64_t firstRow, int64_t rowEnd, int32_t columns, int32_t firstColumn) {
  constexpr int chunks = Format::rowBytes / 16, chunkColumns = mmaDepth / chunks;
#pragma unroll
  for (int at = static_cast<int>(thread()); at < rowCount * chunks; at += threads) {
    const int row = at / chunks, chunk = at % chunks, column = firstColumn + chunk * chunkColumns;
    const bool isThere = firstRow + row < rowEnd && column < columns;
    const void* source = isThere ? format.at(firstRow + row, column, columns) : format.at(0, 0, columns);
    copyAsync16(mmaChunkAt<Format::rowBytes>(to, row, chunk), source, isThere ? 16 : 0);
  }
}

template <typename Format, int outputs, int tokens, int stages, int warpsDown, int warpsAcross>
KERNEL((Mma<Format, outputs, tokens, stages, warpsDown, warpsAcross>::threads))
void multiplyByMma(const LinearArguments a, const Format format) {
  using Shape = Mma<Format, outputs, tokens, stages, warpsDown, warpsAcross>;
  uint8_t* shared = sharedMemory();
  const int64_t firstToken = int64_t{blockIndex().x} * tokens, firstOutput = int64_t{blockIndex().y} * outputs;
  const int stageCount = static_cast<int>(ceilDivide(a.columns, mmaDepth));
  const int warpDown = static_cast<int>(warp()) / warpsAcross * Shape::down * 16;
  const int warpAcross = static_cast<int>(warp()) % warpsAcross * Shape::across * 8;
  const int in8 = static_cast<int>(lane()) % 8;
  const MmaBf16 ofX{a.x};

  const auto fetch = [&](int stage) {
    if (stage < stageCount) {
      uint8_t* to = shared + stage % stages * Shape::stageBytes;
      mmaCopyRows<Format, outputs, Shape::threads>(format, to, firstOutput, a.rows, a.columns, stage * mmaDepth);
      mmaCopyRows<MmaBf16, tokens, Shape::threads>(ofX, to + Shape::xAt, firstToken, a.rowCount, a.columns, stage * mmaDepth);
    }
    commitCopies();
  };
  for (int stage = 0; stage < stages - 1; stage++) fetch(stage);

  float sums[Shape::down][Shape::across][4] = {};
  // Of a group of columns that has a scale of its own: its sums, and the scales of this lane's two rows.
  constexpr bool hasGroups = Format::groupStages > 0;
  constexpr int groupDown = hasGroups ? Shape::down : 1, groupAcross = hasGroups ? Shape::across : 1;
  float groupSums[groupDown][groupAcross][4] = {}, groupScales[groupDown][2] = {};
  for (int stage = 0; stage < stageCount; stage++) {
    waitCopies<stages - 2>();
    syncThreads();  // the stage is there for all, and the one that is fetched now has been read by all
    fetch(stage + stages - 1);
    uint8_t* weights = shared + stage % stages * Shape::stageBytes;
    uint8_t* x = weights + Shape::xAt;
    if constexpr (hasGroups) {
      if (stage % Format::groupStages == 0) {
#pragma unroll
        for (int i = 0; i < Shape::down; i++) {
#pragma unroll
          for (int half = 0; half < 2; half++) {
            const int64_t row = firstOutput + warpDown + 16 * i + static_cast<int>(lane()) / 4 + 8 * half;
            groupScales[i][half] = row < a.rows ? format.groupScale(row, stage * mmaDepth, a.columns) : 0.0f;
          }
        }
      }
    }
    uint32_t raw[Shape::down][4];
#pragma unroll
    for (int k = 0; k < mmaDepth / 16; k++) {
      uint32_t left[Shape::down][4], right[Shape::across][2];
#pragma unroll
      for (int i = 0; i < Shape::down; i++) format.fragment(left[i], raw[i], weights, warpDown + 16 * i, k);
#pragma unroll
      for (int j = 0; j + 1 < Shape::across; j += 2) {
        uint32_t both[4];
        loadMatrix4(both, mmaChunkAt<mmaXBytes>(x, warpAcross + 8 * j + static_cast<int>(lane()) / 16 * 8 + in8, 2 * k + static_cast<int>(lane()) / 8 % 2));
        right[j][0] = both[0];
        right[j][1] = both[1];
        right[j + 1][0] = both[2];
        right[j + 1][1] = both[3];
      }
      if constexpr (Shape::across % 2 == 1) {
        loadMatrix2(right[Shape::across - 1], mmaChunkAt<mmaXBytes>(x, warpAcross + 8 * (Shape::across - 1) + in8, 2 * k + static_cast<int>(lane()) / 8 % 2));
      }
#pragma unroll
      for (int i = 0; i < Shape::down; i++) {
#pragma unroll
        for (int j = 0; j < Shape::across; j++) {
          if constexpr (hasGroups) multiplyBf16(groupSums[i][j], left[i], right[j]);
          else multiplyBf16(sums[i][j], left[i], right[j]);
        }
      }
    }
    if constexpr (hasGroups) {
      if ((stage + 1) % Format::groupStages == 0 || stage + 1 == stageCount) {
#pragma unroll
        for (int i = 0; i < Shape::down; i++) {
#pragma unroll
          for (int j = 0; j < Shape::across; j++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
              sums[i][j][e] = multiplyAdd(groupSums[i][j][e], groupScales[i][e / 2], sums[i][j][e]);
              groupSums[i][j][e] = 0;
            }
          }
        }
      }
    }
  }
  waitCopies<0>();
  syncThreads();

  // Results by token in the ring's memory, then out of it in rows.
  float* results = reinterpret_cast<float*>(shared);
#pragma unroll
  for (int i = 0; i < Shape::down; i++) {
#pragma unroll
    for (int j = 0; j < Shape::across; j++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const int output = warpDown + 16 * i + static_cast<int>(lane()) / 4 + e / 2 * 8;
        const int token = warpAcross + 8 * j + static_cast<int>(lane()) % 4 * 2 + e % 2;
        const float scale = firstOutput + output < a.rows ? format.rowScale(firstOutput + output) : 0.0f;
        results[token * Shape::stagedStride + output] = multiplyRounded(sums[i][j][e], scale);
      }
    }
  }
  syncThreads();
  const bool isWhole = a.rows % 4 == 0;
  for (int at = 4 * static_cast<int>(thread()); at < tokens * outputs; at += 4 * Shape::threads) {
    const int token = at / outputs, output = at % outputs;
    if (firstToken + token >= a.rowCount || firstOutput + output >= a.rows) continue;
    const float* from = results + token * Shape::stagedStride + output;
    const float four[4] = {from[0], from[1], from[2], from[3]};
    if (isWhole) {
      takeFour(a, firstToken + token, firstOutput + output, four);
    } else {
      for (int i = 0; i < 4 && firstOutput + output + i < a.rows; i++) takeOne(a, firstToken + token, firstOutput + output + i, four[i]);
    }
  }
}

template <typename Format, int outputs, int tokens, int stages, int warpsDown, int warpsAcross>
void runMma(const LinearArguments& a, const Format& format, Stream stream) {
  using Shape = Mma<Format, outputs, tokens, stages, warpsDown, warpsAcross>;
  const Size3 grid{static_cast<uint32_t>(ceilDivide(a.rowCount, tokens)), static_cast<uint32_t>(ceilDivide(a.rows, outputs))};
  launch("linearByMma", multiplyByMma<Format, outputs, tokens, stages, warpsDown, warpsAcross>, {grid, {Shape::threads}, Shape::sharedBytes}, stream, a, format);
}

template <typename Format>
struct MmaTileKernel {
  MmaTile shape;
  void (*run)(const LinearArguments& arguments, const Format& format, Stream stream);
};

template <typename Format, int outputs, int tokens, int stages, int warpsDown, int warpsAcross>
constexpr MmaTileKernel<Format> mmaTile() {
  return {{outputs, tokens, mmaDepth, stages}, runMma<Format, outputs, tokens, stages, warpsDown, warpsAcross>};
}

// The tiles of every format, in the order of their numbers.
template <typename Format>
constexpr MmaTileKernel<Format> mmaTiles[] = {
    mmaTile<Format, 16, 8, 8, 1, 1>(),  mmaTile<Format, 32, 8, 6, 2, 1>(),  mmaTile<Format, 64, 8, 4, 4, 1>(),   mmaTile<Format, 64, 16, 4, 4, 1>(),
    mmaTile<Format, 64, 32, 4, 4, 1>(), mmaTile<Format, 64, 64, 4, 2, 2>(), mmaTile<Format, 128, 64, 4, 4, 2>(), mmaTile<Format, 128, 128, 4, 4, 2>(),
};

template <typename Format>
void linearByMmaOf(const LinearArguments& arguments, const Format& format, int32_t tile, int32_t columnStep, Stream stream) {
  if (tile < 1 || tile > mmaTileCount()) throw NativeFault("linearByMma: there is no tile " + std::to_string(tile));
  if (arguments.columns % columnStep != 0) throw NativeFault("linearByMma: columns must be a multiple of " + std::to_string(columnStep));
  mmaTiles<Format>[tile - 1].run(arguments, format, stream);
}

}  // namespace variator::cuda
