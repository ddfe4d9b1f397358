// From logits to tokens on the device, row by row, by the rules of ../sampling.h: greedy, temperature, min-p, top-k, top-p and
// one draw by (seed, position). Weights have the same bits as on the CPU; their sums are whole numbers (units of 2^-44 of the
// likeliest token's weight), which no order of adding changes. So the token is the CPU's but where the draw falls within
// 2^-44 of a border. Rules and scores are the host's work (engine.cc). Called by the engine at the end of a step.
#pragma once
#include "formats.h"
#include "gpu.h"

namespace variator::cuda {

struct SampleArguments {
  const float* logits;  // [rowCount, vocabularySize]
  const float *temperatures, *topPs, *minPs;  // [rowCount]
  const int32_t* topKs;                       // [rowCount]
  const uint32_t* seeds;                      // [rowCount, 2] low, high
  const int32_t* positions;                   // [rowCount] of the token that is drawn
  int32_t* out;                               // [rowCount]; -1 where a logit is none
  int32_t rowCount, vocabularySize;           // at most 2^19
};

void sample(const SampleArguments& arguments, Stream stream);

}  // namespace variator::cuda
