// GEMV over matrices in 8 or 4 bits, for up to 8 rows of bf16: half and a quarter of the bytes that a step waits for. Called by
// the runner's checks and timings; the engine opens bf16 models alone so far. Order of sums as linearByGemv's.
#pragma once
#include <vector>

#include "linear.h"

namespace variator::cuda {

// e4m3 (FP8, Micikevicius et al., 2022), a float32 scale for each row.
struct Fp8Matrix {
  const uint8_t* codes;  // [rows, columns], columns a multiple of 16
  const float* scales;   // [rows]
};

// 4 bits, q - 8 times the scale of a group of columns. In a word, the pair of columns 2i and 2i + 1 stands in nibbles i and
// i + 4, so that one mask takes both out as the low bits of two bf16 numbers.
constexpr int32_t int4GroupColumns = 128;
struct Int4Matrix {
  const uint32_t* codes;  // [rows, columns / 8], columns a multiple of 128
  const float* scales;    // [rows, columns / 128]
};

// arguments.weight is not read.
void linearByGemv(const LinearArguments& arguments, const Fp8Matrix& matrix, int32_t rowsPerWarp, Stream stream);
void linearByGemv(const LinearArguments& arguments, const Int4Matrix& matrix, int32_t rowsPerWarp, Stream stream);

// On the host: a matrix rounded to the format, row by row.
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
// What the codes stand for.
std::vector<float> valuesOf(const Fp8Codes& codes, int32_t rows, int32_t columns);
std::vector<float> valuesOf(const Int4Codes& codes, int32_t rows, int32_t columns);

}  // namespace variator::cuda
