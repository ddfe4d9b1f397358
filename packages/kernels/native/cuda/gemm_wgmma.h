// Matrix products of many rows on sm_90a: out[rows, columns] = activations[rows, depth] x weights[columns, depth] and what
// is fused to it. Called by the step for 128 rows and more. A variant sums along K in one fixed order, so a row's bits do
// not depend on how many rows stand around it. Refuses shapes that TMA cannot address: depth and columns of odd size.
#pragma once
#include <vector>

#include "formats.h"
#include "gpu.h"

namespace variator::cuda {

enum class GemmType {
  bf16,           // bf16 operands
  e4m3,           // e4m3 operands, a scale for each row of activations and each row of weights
  e4m3Blocks,     // e4m3 operands, a scale for each 128 of a row of activations and each 128 x 128 of the weights
};

struct GemmVariant {
  GemmType type;
  int tileM, tileN, tileK;  // of one block; tileK in elements
  int stages;
  int clusterM;  // blocks, one below the other, that fetch each tile of weights together: 1 or 2
  bool isFloatOut;
};

/**
 * Rows of several experts, each with weights of its own, [experts, columns, depth]. Either rows in the order of experts,
 * filled up to whole tiles of the variant (tileExperts), or as many rows for each expert, of which the first are in use.
 */
struct GemmGroups {
  const int32_t* tileExperts;  // [rows / tileM] expert of a tile, -1: nothing to do; or null
  const int32_t* rowCounts;    // [rows / mostRows] rows in use of each expert; or null
  int32_t mostRows;            // of an expert, a multiple of tileM
  int32_t experts;
};

struct GemmArguments {
  const void* activations;       // [rows, depth]
  const void* weights;           // [columns, depth]
  const float* activationScales; // e4m3: [rows]; e4m3Blocks: [rows, depth / 128 rounded up]; else null
  const float* weightScales;     // e4m3: [columns]; e4m3Blocks: [columns / 128, depth / 128], both rounded up; else null
  const float* bias;             // [columns] or null
  const Bf16* residual;          // [rows, columns] or null; may be `out`
  const float* addend;           // [rows, columns] or null; may be `out`
  void* out;                     // [rows, columns] bf16, or float32 where the variant says so
  int32_t rows, columns, depth;  // depth a multiple of 16 bytes, columns of 8
  GemmGroups groups{};           // experts 0: one matrix of weights
};

/** Every variant that is compiled. */
const std::vector<GemmVariant>& gemmVariants();
/** Throws NativeFault for a variant that is not compiled, or a shape it cannot take. */
void gemmWgmma(const GemmVariant& variant, const GemmArguments& arguments, Stream stream);

}  // namespace variator::cuda
