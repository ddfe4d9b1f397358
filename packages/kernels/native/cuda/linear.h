// y = x W^T of bf16 matrices, sums in float32. Two families: by mma.sync for any number of rows, where every tile gives the
// same bits for a row whatever the batch around it; and GEMV for up to 8 rows, bound by memory. Called by the engine;
// what becomes of a sum (stored, with a bias, added to the residual) happens in the same kernel.
#pragma once
#include "formats.h"
#include "gpu.h"

namespace variator::cuda {

enum class Take : int32_t {
  AsBf16,         // out Bf16
  AsFloat,        // out float
  AddToResidual,  // out float, added onto
};

struct LinearArguments {
  const Bf16* x;       // [rowCount, columns], rows 16-byte aligned
  const Bf16* weight;  // [rows, columns]
  void* out;           // [rowCount, rows]
  Take take;
  int32_t rowCount;
  int32_t rows;     // of the matrix: a result's size
  int32_t columns;  // a multiple of 8
};

struct MmaTile {
  int32_t outputs, tokens, depth, stages;  // results and rows of x of a block, columns of a stage, stages of the ring
};
// All tiles; none changes a bit.
int32_t mmaTileCount();
MmaTile mmaTileOf(int32_t tile);
// The tile for so many rows where nobody has measured.
int32_t defaultMmaTile(int32_t rowCount);
void linearByMma(const LinearArguments& arguments, int32_t tile, Stream stream);

constexpr int32_t mostGemvRows = 8;
// Parameters change no bit: each lane sums every 32nd group of 8 columns, then lanes by butterflies.
struct GemvShape {
  int32_t rowsPerWarp;  // 1, 2, 4: rows of the matrix
  int32_t loads;        // 4, 8: 16-byte loads in flight of each
};
void linearByGemv(const LinearArguments& arguments, GemvShape shape, Stream stream);

}  // namespace variator::cuda
