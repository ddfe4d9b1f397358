// The float32 operations of a step, as a table of functions: the same source compiled for every instruction-set tier
// (build.mjs), the same bits from each. step.cc, sampling.cc and attention's callers use the table that tiers.cc picks.
// Strides count elements. "Padded" means rounded up to 32, with zeros behind the last column.
#pragma once
#include <cstdint>

#include "tensor.h"

namespace variator {

struct KvLayout;
enum class KvFormat;

// What a linear layer multiplies with: rows of float32, and beside them (for the int8 variants) the same rows as int8
// codes in groups of 32 with a scale each; scaledSums = scale * sum of the group's codes. Or, for bf16, rounded to it.
struct Activations {
  float* values;      // [rows, stride]
  int8_t* codes;      // [rows, stride]
  float* scales;      // [rows, stride / 32]
  float* scaledSums;  // [rows, stride / 32]
  uint16_t* bf16;     // [rows, stride]
  int8_t* restCodes;  // what the codes leave over, rounded once more; the same shapes
  float *restScales, *restScaledSums;
  int64_t stride;     // padded columns

  // The same rows by what was left over.
  Activations rest() const {
    Activations other = *this;
    other.codes = restCodes;
    other.scales = restScales;
    other.scaledSums = restScaledSums;
    return other;
  }
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
  // x less the numbers that these codes stand for.
  void (*leftOver)(const float* x, int64_t groupCount, const int8_t* codes, const float* scales, float* rest);
  // To nearest, ties to even, [size], size a multiple of 16.
  void (*roundToBf16)(const float* x, int64_t size, uint16_t* out);
  // out[i] = e^((x[i] - most) * factor), [size].
  void (*exponentials)(const float* x, int64_t size, float most, float factor, float* out);
  float (*mostOf)(const float* x, int64_t size);
};

// How rows of one head go into a block of one layer and KV head and come out of it again, by KvFormat.
struct KvOps {
  // key: [headSize], value: [valueSize].
  void (*write)(const KvLayout& layout, uint8_t* headBlock, int64_t slot, const float* key, const float* value);
  void (*read)(const KvLayout& layout, const uint8_t* headBlock, int64_t slot, float* key, float* value);
};

// Paged attention of up to `maxPairCount` (row, head) pairs of one sequence that share one KV head.
struct AttentionCall {
  static constexpr int maxPairCount = 6;
  const float* queries[maxPairCount];  // [headSize] each
  float* outs[maxPairCount];           // [valueSize] each; of a split: see AttentionOps
  int64_t starts[maxPairCount];        // position of the first key each attends to: 0 unless a window has passed it
  int64_t lengths[maxPairCount];       // position behind the last key
  int pairCount;
  const int32_t* blockTable;
  const uint8_t* blocks;  // of this layer and KV head
  int64_t blockBytes;     // from one block to the next
  const KvLayout* layout;
  float scale;
  float* scores;          // scratch [maxPairCount, scoreStride]
  int64_t scoreStride;    // longest length (of a split: its positions) + blockSize + 32 at least
  uint8_t* weightCodes;   // scratch [maxPairCount, tileStride, 16], and a scale each; where weights are rounded to codes
  float* weightScales;
  int64_t prefetchBlocks; // asked for so many blocks before they are computed; 0: not at all
  int64_t tileStride;     // tiles of 16 positions that a split touches, at most (splitTileCount)
};

// Contexts are attended to in pieces of so many positions, [0, n), [n, 2n) and so on, n of the step (Step::splitTokens): a
// fixed size, so that a row's sums are the same whatever is computed beside it, and so that a long context is work for
// several threads. A power of two, so that pieces begin with tiles.
constexpr int64_t leastSplitTokens = 128, mostSplitTokens = 2048;

// Tiles that so many positions in a row touch: up to 16 positions of one block each.
static inline int64_t splitTileCount(int64_t positions, int64_t blockSize) {
  const int64_t blocks = positions / blockSize + 2, tilesOfBlock = (blockSize + 15) / 16;
  return blocks * tilesOfBlock < positions + 2 ? blocks * tilesOfBlock : positions + 2;
}

// Attention over positions [starts, lengths) of one split. A pair's result goes to outs[pair], [valueSize padded to 16, + 2]:
// the sum of weights * V without its division, the largest score, the sum of weights. Weights are e^(score - largest). A pair without a position in the split (starts >= lengths) gets a sum of weights of 0.
using AttendSplit = void (*)(const AttentionCall& call);
// Elements of such a result.
static inline int64_t splitSize(int64_t valueSize) { return (valueSize + 15) / 16 * 16 + 16; }

struct AttentionOps {
  // attention.reference: the whole context at once, in float32.
  void (*attend)(const AttentionCall& call);
  // Adds a split's result to `state`, that of the splits before it. Called in the order of the splits, whoever computed
  // them. Rabe and Staats, 2021.
  void (*addSplit)(const float* split, int64_t valueSize, float* state);
  // out = sum of weights * V / sum of weights, [valueSize].
  void (*finishSplits)(const float* state, int64_t valueSize, float* out);
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
  extern const KvOps kvOpsFloat32, kvOpsBf16, kvOpsInt8; \
  extern const AttendSplit attendFloat32, attendBf16, attendInt8; \
  extern const ProbeLoops probeLoops;     \
  }
VARIATOR_DECLARE_TIER(tier_base)
VARIATOR_DECLARE_TIER(tier_avx2)
VARIATOR_DECLARE_TIER(tier_avx512)

// The best tier of this machine.
const FloatOps& floatOps();
const AttentionOps& attentionOps();
const KvOps& kvOps(KvFormat format);
// The fastest of this machine for a format; all of a format give the same bits.
AttendSplit attendSplit(KvFormat format);
#if defined(VARIATOR_HAS_X86_TIERS)
// Int8 scores by vpdpbusd.
extern const AttendSplit attendInt8Avx512Vnni;
#endif
const ProbeLoops& probeLoops();
// The same, but never a loop that needs AVX-512 VNNI.
const ProbeLoops& plainProbeLoops();

}  // namespace variator
