// Decode attention over latents (multi-head latent attention with absorbed projections, DeepSeek-V2, 2024) on sm_90a: every
// head attends to the same row of 512 latent and 64 rotated numbers a token, of which the first 512 are its values, too.
// For models with such attention; no engine calls it yet. The context is cut at multiples of `splitTokens` and the parts are
// added in their order by whoever comes last, so a row's bits depend on its context alone.
#pragma once
#include "formats.h"
#include "gpu.h"

namespace variator::cuda {

constexpr int32_t mlaLatentSize = 512, mlaRowSize = 576, mlaHeadsPerBlock = 64;

struct MlaArguments {
  const Bf16* queries;          // [sequences, headCount, 576], projected to latents
  const Bf16* latents;          // [blocks, kvBlockTokens, 576]
  const int32_t* blockTables;   // [sequences, blockTableStride]
  int32_t blockTableStride;
  const int32_t* tokenCounts;   // [sequences] tokens to attend to, the sequence's own included; 0: the row is left alone
  Bf16* out;                    // [sequences, headCount, 512]
  int32_t sequenceCount, headCount, blockCount;
  int32_t splitTokens;          // a multiple of 64
  int32_t mostTokens;           // no count is larger
  float scale;                  // of scores
  float* partials;              // mlaPartialCount of them
  uint32_t* arrivals;           // sequenceCount * (headCount / 64 rounded up) zeros, zeros again afterwards
};

int64_t mlaPartialCount(const MlaArguments& arguments);
void mlaDecodeByWgmma(const MlaArguments& arguments, Stream stream);

}  // namespace variator::cuda
