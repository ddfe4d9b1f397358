// y = x W^T over matrices in 8 or 4 bits: half and a quarter of the bytes that a step waits for. The same two families as
// linear.h, with its orders of sums, over rows of x in bf16; and the kernels that round matrices (and rows of x, for products
// in 8 bits) to such codes. Called by the engine where a path says so.
#pragma once
#include <vector>

#include "linear.h"

namespace variator::cuda {

// e4m3 (FP8, Micikevicius et al., 2022), a float32 scale for each row: its largest value / 448. Of 16 columns, word t of four
// holds columns 2t, 2t + 1, 2t + 8, 2t + 9 from the lowest byte up: what lane t of a fragment's four holds of a row.
constexpr int32_t fp8ColumnStep = 16;
struct Fp8Matrix {
  const uint8_t* codes;  // [rows, columns], columns a multiple of fp8ColumnStep
  const float* scales;   // [rows]
};

// 4 bits, q - 8 times the scale of a group of columns, its largest value / 7. Of 32 columns, word t of four holds the pairs
// 2t + 8i and 2t + 8i + 1 (i from 0 to 3) in nibbles i and i + 4, so that one mask takes a pair out as the low bits of two
// bf16 numbers, and a lane's word is what it multiplies in two steps of 16.
constexpr int32_t int4GroupColumns = 128, int4ColumnStep = 32;
VARIATOR_EVERYWHERE int32_t int4GroupsOf(int32_t columns) { return (columns + int4GroupColumns - 1) / int4GroupColumns; }
struct Int4Matrix {
  const uint32_t* codes;  // [rows, columns / 8], columns a multiple of int4ColumnStep
  const float* scales;    // [rows, int4GroupsOf(columns)]: the last group may be a short one
};

// arguments.weight is not read.
void linearByGemv(const LinearArguments& arguments, const Fp8Matrix& matrix, int32_t rowsPerWarp, Stream stream);
void linearByGemv(const LinearArguments& arguments, const Int4Matrix& matrix, int32_t rowsPerWarp, Stream stream);

// For any number of rows, in the tiles of linear.h: none changes a bit.
void linearByMma(const LinearArguments& arguments, const Fp8Matrix& matrix, int32_t tile, Stream stream);
void linearByMma(const LinearArguments& arguments, const Int4Matrix& matrix, int32_t tile, Stream stream);

// On the device: rows [rows, columns] of bf16 rounded to nearest, ties to even.
void quantiseToFp8(const Bf16* from, int32_t rows, int32_t columns, uint8_t* codes, float* scales, Stream stream);
void quantiseToInt4(const Bf16* from, int32_t rows, int32_t columns, uint32_t* codes, float* scales, Stream stream);

// On the host, for checks: the same codes, and what they stand for.
struct Fp8Codes {
  std::vector<uint8_t> codes;
  std::vector<float> scales;
};
Fp8Codes roundToFp8(const std::vector<float>& weight, int32_t rows, int32_t columns);
struct Int4Codes {
  std::vector<uint32_t> codes;
  std::vector<float> scales;
};
Int4Codes roundToInt4(const std::vector<float>& weight, int32_t rows, int32_t columns);
std::vector<float> valuesOf(const Fp8Codes& codes, int32_t rows, int32_t columns);
std::vector<float> valuesOf(const Int4Codes& codes, int32_t rows, int32_t columns);

}  // namespace variator::cuda
