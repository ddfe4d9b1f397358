// Matrix products of 8 to 64 rows on sm_90a with the operands exchanged: 64 rows of weights are wgmma's M side, the rows of
// activations its N = 8..64, so that little is padded. Called by the step between the vector kernels and gemm_wgmma.h. The
// depth is cut into `splits` parts at fixed borders and their sums are added in their order, so a row's bits depend on the
// variant and not on its neighbours. Refuses more rows than the variant holds.
#pragma once
#include <vector>

#include "formats.h"
#include "gpu.h"

namespace variator::cuda {

struct SkinnyVariant {
  bool isE4m3;   // operands and a scale for each row of both; else bf16
  int tileM;     // rows of weights of one block: 64 or 128
  int mostRows;  // wgmma's N
  int tileK;     // bytes / 128 of K of one stage: 1 or 2
  int stages;
  int splits;    // of the depth; any number, at run time
};

struct SkinnyArguments {
  const void* activations;        // [rows, depth]
  const void* weights;            // [columns, depth]
  const float* activationScales;  // e4m3: [rows]; else null
  const float* weightScales;      // e4m3: [columns]; else null
  const float* bias;              // [columns] or null
  const Bf16* residual;           // [rows, columns] or null; may be `out`
  Bf16* out;                      // [rows, columns]; null where floatOut is not
  const float* addend;            // [rows, columns] or null; may be `floatOut`, which it needs
  float* floatOut;                // [rows, columns] or null
  float* partials;                // skinnyPartialCount of them; null where splits is 1
  uint32_t* arrivals;             // skinnyTileCount zeros, zeros again afterwards; null where splits is 1
  int32_t rows, columns, depth;   // depth a multiple of 16 bytes, columns of 8
};

/** Every variant that is compiled, with splits 1; others differ in splits alone. */
const std::vector<SkinnyVariant>& skinnyVariants();
int64_t skinnyTileCount(const SkinnyVariant& variant, int32_t columns);
int64_t skinnyPartialCount(const SkinnyVariant& variant, int32_t columns);
void skinnyWgmma(const SkinnyVariant& variant, const SkinnyArguments& arguments, Stream stream);

}  // namespace variator::cuda
