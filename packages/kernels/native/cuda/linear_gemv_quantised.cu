// linearByGemv of linear_quantised.h. A lane takes 16 bytes of a row at a time: 16 columns of e4m3, or 32 of 4 bits, which lie in one
// group; their products are summed apart, then multiplied by the scale.
#include "linear_quantised.h"

#include "../native_fault.h"
#include "block_sums.cuh"
#include "linear_take.cuh"
#include "quantised_words.cuh"

namespace variator::cuda {
namespace {

constexpr int warps = 4, threads = 32 * warps, loads = 4;

struct Fp8Format {
  static constexpr int columns = 16;
  Fp8Matrix matrix;
  DEVICE const void* at(int64_t row, int32_t group, int32_t columnCount) const { return matrix.codes + row * columnCount + group * columns; }
  // Columns 2i and 2i + 1 of the 16 bytes, as bf16.
  DEVICE uint32_t pair(const Bytes16& bytes, int i) const { return bf16OfE4m3(bytes.words[i % 4], i / 4 == 0 ? lowTwo : highTwo); }
  DEVICE float groupScale(int64_t, int32_t, int32_t) const { return 1; }
  DEVICE float rowScale(int64_t row) const { return matrix.scales[row]; }
};

struct Int4Format {
  static constexpr int columns = 32;
  Int4Matrix matrix;
  DEVICE const void* at(int64_t row, int32_t group, int32_t columnCount) const { return matrix.codes + (row * columnCount + group * columns) / 8; }
  DEVICE uint32_t pair(const Bytes16& bytes, int i) const { return bf16OfInt4(bytes.words[i % 4], i / 4); }
  DEVICE float groupScale(int64_t row, int32_t group, int32_t columnCount) const {
    return matrix.scales[row * int4GroupsOf(columnCount) + group * columns / int4GroupColumns];
  }
  DEVICE float rowScale(int64_t) const { return 1; }
};

template <typename Format, int xRows, int rowsPerWarp>
KERNEL(threads)
void multiplyQuantised(const LinearArguments a, const Format format) {
  const int64_t firstRow = (int64_t{blockIndex().x} * warps + warp()) * rowsPerWarp;
  if (firstRow >= a.rows) return;
  const int32_t groupCount = a.columns / Format::columns;
  float sums[xRows][rowsPerWarp] = {};
  for (int32_t first = static_cast<int32_t>(lane()); first < groupCount; first += 32 * loads) {
    Bytes16 codes[loads][rowsPerWarp];
#pragma unroll
    for (int l = 0; l < loads; l++) {
#pragma unroll
      for (int r = 0; r < rowsPerWarp; r++) {
        codes[l][r] = Bytes16{{0, 0, 0, 0}};
        const int32_t group = first + 32 * l;
        if (group < groupCount && firstRow + r < a.rows) codes[l][r] = loadOnce16(format.at(firstRow + r, group, a.columns));
      }
    }
#pragma unroll
    for (int l = 0; l < loads; l++) {
      const int32_t group = first + 32 * l;
      if (group >= groupCount) break;
#pragma unroll
      for (int r = 0; r < rowsPerWarp; r++) {
        if (firstRow + r >= a.rows) break;
        float partial[xRows] = {};
#pragma unroll
        for (int part = 0; part < Format::columns / 8; part++) {
#pragma unroll
          for (int m = 0; m < xRows; m++) {
            if (m >= a.rowCount) break;
            const Bytes16 x = load16(a.x + static_cast<int64_t>(m) * a.columns + group * Format::columns + part * 8);
#pragma unroll
            for (int i = 0; i < 4; i++) {
              const uint32_t pair = format.pair(codes[l][r], part * 4 + i);
              partial[m] = multiplyAdd(lowOf(pair), lowOf(x.words[i]), partial[m]);
              partial[m] = multiplyAdd(highOf(pair), highOf(x.words[i]), partial[m]);
            }
          }
        }
        const float scale = format.groupScale(firstRow + r, group, a.columns);
#pragma unroll
        for (int m = 0; m < xRows; m++) sums[m][r] = multiplyAdd(partial[m], scale, sums[m][r]);
      }
    }
  }
#pragma unroll
  for (int m = 0; m < xRows; m++) {
    if (m >= a.rowCount) break;
#pragma unroll
    for (int r = 0; r < rowsPerWarp; r++) {
      const float sum = warpSum(sums[m][r]);
      if (lane() == 0 && firstRow + r < a.rows) takeOne(a, m, firstRow + r, multiplyRounded(sum, format.rowScale(firstRow + r)));
    }
  }
}

template <typename Format, int xRows, int rowsPerWarp>
void run(const LinearArguments& a, const Format& format, Stream stream) {
  const auto blocks = static_cast<uint32_t>(ceilDivide(a.rows, warps * rowsPerWarp));
  launch("linearByGemv, quantised", multiplyQuantised<Format, xRows, rowsPerWarp>, {{blocks}, {threads}}, stream, a, format);
}

template <typename Format>
void runAny(const LinearArguments& a, const Format& format, int32_t rowsPerWarp, Stream stream) {
  if (a.rowCount < 1 || a.rowCount > mostGemvRows) throw NativeFault("linearByGemv: takes 1 to 8 rows");
  if (rowsPerWarp != 1 && rowsPerWarp != 2) throw NativeFault("linearByGemv: rowsPerWarp must be 1 or 2");
  const bool isTwo = rowsPerWarp == 2;
  if (a.rowCount == 1) isTwo ? run<Format, 1, 2>(a, format, stream) : run<Format, 1, 1>(a, format, stream);
  else if (a.rowCount <= 4) isTwo ? run<Format, 4, 2>(a, format, stream) : run<Format, 4, 1>(a, format, stream);
  else isTwo ? run<Format, 8, 2>(a, format, stream) : run<Format, 8, 1>(a, format, stream);
}

}  // namespace

void linearByGemv(const LinearArguments& arguments, const Fp8Matrix& matrix, int32_t rowsPerWarp, Stream stream) {
  if (arguments.columns % fp8ColumnStep != 0) throw NativeFault("linearByGemv: e4m3 needs columns in multiples of 16");
  runAny(arguments, Fp8Format{matrix}, rowsPerWarp, stream);
}

void linearByGemv(const LinearArguments& arguments, const Int4Matrix& matrix, int32_t rowsPerWarp, Stream stream) {
  if (arguments.columns % int4ColumnStep != 0) throw NativeFault("linearByGemv: 4 bits need columns in multiples of 32");
  runAny(arguments, Int4Format{matrix}, rowsPerWarp, stream);
}

}  // namespace variator::cuda
