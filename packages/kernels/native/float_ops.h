// The float32 operations of a step, as a table of functions: the same source compiled for every instruction-set tier
// (build.mjs), the same bits from each. step.cc, sampling.cc and attention's callers use the table that tiers.cc picks.
// Strides count elements. "Padded" means rounded up to 32, with zeros behind the last column.
#pragma once
#include <cstdint>

#include "tensor.h"

namespace variator {

// What a linear layer multiplies with: rows of float32, and beside them (for the int8 variants) the same rows as int8
// codes in groups of 32 with a scale each; scaledSums = scale * sum of the group's codes.
struct Activations {
  float* values;      // [rows, stride]
  int8_t* codes;      // [rows, stride]
  float* scales;      // [rows, stride / 32]
  float* scaledSums;  // [rows, stride / 32]
  int64_t stride;     // padded columns
};

struct FloatOps {
  // One row of weights as float32 into [padded columns].
  void (*dequantiseRow)(const uint8_t* row, Dtype dtype, int64_t columns, float* out);
  // x * weight / sqrt(mean(x^2) + epsilon). Zhang and Sennrich, 2019.
  void (*rmsNorm)(const float* x, const float* weight, int64_t size, float epsilon, float* out);
  // The reference linear layer: weight rows 32 * panel onward for `rowCount` activation rows from `rowStart`, into
  // out [rowCount, 32]; `weightRows` is scratch of [4, padded columns].
  void (*linearPanel)(const Tensor& weight, const Activations& activations, int64_t panel, int64_t rowStart,
                      int64_t rowCount, float* weightRows, float* out);
  // Rotates one head in place; pairs are (i, i + half), or (2i, 2i + 1) where interleaved. cosines, sines: [half].
  void (*rotate)(float* head, const float* cosines, const float* sines, int64_t half, bool isInterleaved);
  // out = gate / (1 + e^-gate) * up, [size], size a multiple of 16.
  void (*swiGlu)(const float* gate, const float* up, int64_t size, float* out);
  void (*add)(const float* x, int64_t size, float* sum);
  // sum += factor * x.
  void (*addScaled)(const float* x, int64_t size, float factor, float* sum);
  // Groups of 32, each symmetric: code = nearest(x / scale), scale = max |x| / 127.
  void (*quantise)(const float* x, int64_t groupCount, int8_t* codes, float* scales, float* scaledSums);
  // out[i] = e^((x[i] - most) * factor), [size].
  void (*exponentials)(const float* x, int64_t size, float most, float factor, float* out);
  float (*mostOf)(const float* x, int64_t size);
};

// Paged attention of up to `maxPairCount` (row, head) pairs that share one KV head. The cache of one layer and KV head
// lies in blocks of K [tile of 16 tokens][headSize][16] followed by V [blockSize][valueSize padded to 16].
struct AttentionCall {
  static constexpr int maxPairCount = 6;
  const float* queries[maxPairCount];  // [headSize] each
  float* outs[maxPairCount];           // [valueSize] each
  int64_t starts[maxPairCount];        // position of the first key each attends to: 0 unless a window has passed it
  int64_t lengths[maxPairCount];       // position behind the last key
  int pairCount;
  const int32_t* blockTable;
  int64_t blockSize;
  const float* blocks;   // of this layer and KV head
  int64_t blockStride;   // elements from one block to the next
  int64_t valueOffset;   // elements from a block's K to its V
  int64_t headSize;      // of queries and keys
  int64_t valueSize;
  float scale;
  float* scores;         // scratch [maxPairCount, scoreStride]
  int64_t scoreStride;   // longest length + blockSize + 16 at least
};

struct AttentionOps {
  void (*attend)(const AttentionCall& call);
};

// Loops that measure the machine; each does a known amount of work and returns something so that none is left out.
struct ProbeLoops {
  float (*read)(const float* from, int64_t size);
  // 2 * 16 * 12 * rounds float32 operations.
  float (*multiplyAdd)(int64_t rounds);
  // 2 * 64 * 12 * rounds int8 operations.
  int32_t (*int8Dot)(int64_t rounds);
};

#define VARIATOR_DECLARE_TIER(tier)       \
  namespace tier {                        \
  extern const FloatOps floatOps;         \
  extern const AttentionOps attentionOps; \
  extern const ProbeLoops probeLoops;     \
  }
VARIATOR_DECLARE_TIER(tier_base)
VARIATOR_DECLARE_TIER(tier_avx2)
VARIATOR_DECLARE_TIER(tier_avx512)

// The best tier of this machine.
const FloatOps& floatOps();
const AttentionOps& attentionOps();
const ProbeLoops& probeLoops();
// The same, but never a loop that needs AVX-512 VNNI.
const ProbeLoops& plainProbeLoops();

}  // namespace variator
