// What stands between the linear layers of a transformer, one pass each: rows of the embedding, biases with per-head norms,
// rotation and the KV cache's append, and SwiGLU. Called by the engine. Every result depends on its own row alone.
#pragma once
#include "formats.h"
#include "gpu.h"

namespace variator::cuda {

// Tokens a KV block holds.
constexpr int32_t kvBlockTokens = 16;

struct EmbedArguments {
  const Bf16* embedding;    // [vocabularySize, hiddenSize]
  const int32_t* tokenIds;  // [tokenCount]
  float* residual;          // [tokenCount, hiddenSize]
  int32_t tokenCount, hiddenSize;  // a multiple of 8
};
void embed(const EmbedArguments& arguments, Stream stream);

// One layer's keys and values, either in bf16, [blocks, kvHeadCount, kvBlockTokens, headSize] each; or in e4m3, where a block
// is [kvHeadCount, kvBlockTokens, headSize] codes, then [kvHeadCount, kvBlockTokens] float32 scales: a row's largest / 448.
struct KvLayer {
  Bf16 *keys, *values;
  uint8_t *fp8Keys = nullptr, *fp8Values = nullptr;  // where they are there, the others are not looked at
};
VARIATOR_EVERYWHERE int64_t fp8KvBlockBytes(int32_t kvHeadCount, int32_t headSize) { return int64_t{kvHeadCount} * kvBlockTokens * (headSize + 4); }
// Where in its row the code of a dimension lies, headSize a multiple of 16: so that ldmatrix gives a lane of a fragment what it
// holds. Keys: of 16 the word t of four has 2t, 2t + 1, 2t + 8, 2t + 9. Values, which are read transposed: d beside d + 8.
VARIATOR_EVERYWHERE int32_t fp8KeyPlace(int32_t dimension) {
  const int32_t pair = dimension % 16 / 2;
  return dimension / 16 * 16 + pair % 4 * 4 + pair / 4 * 2 + dimension % 2;
}
VARIATOR_EVERYWHERE int32_t fp8ValuePlace(int32_t dimension) { return dimension / 16 * 16 + dimension % 8 * 2 + dimension / 8 % 2; }

struct RotateAppendArguments {
  Bf16* qkv;                         // [tokenCount, (headCount + 2 kvHeadCount) headSize]; queries are rotated in place
  const float* bias;                 // of a row, or null
  const float *queryNorm, *keyNorm;  // [headSize], or null
  const float* cosines;              // [tokenCount, headSize / 2]
  const float* sines;
  const int32_t* slots;  // [tokenCount] block * kvBlockTokens + place in it; -1: a row that only fills up a batch
  KvLayer kv;
  int32_t tokenCount, headCount, kvHeadCount, headSize;  // headSize even, at most 256
  int32_t isInterleaved;  // pairs (2i, 2i + 1) rather than (i, i + headSize / 2)
  float epsilon;
};
void rotateAndAppend(const RotateAppendArguments& arguments, Stream stream);

// Cosines and sines of every token's angles: position * frequency in float32, as models are trained with.
struct AngleArguments {
  const int32_t* positions;   // [tokenCount]
  const float* frequencies;   // [half]
  float *cosines, *sines;     // [tokenCount, half]
  int32_t tokenCount, half;
  float factor;
};
void rotaryAngles(const AngleArguments& arguments, Stream stream);

struct SwiGluArguments {
  const Bf16* gateUp;  // [tokenCount, 2 size]: gate, then up
  Bf16* out;           // [tokenCount, size]
  int32_t tokenCount, size;  // a multiple of 8
};
void swiGlu(const SwiGluArguments& arguments, Stream stream);

}  // namespace variator::cuda
