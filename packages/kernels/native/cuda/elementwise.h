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

// One layer's keys and values: [blocks, kvHeadCount, kvBlockTokens, headSize] each.
struct KvLayer {
  Bf16 *keys, *values;
};

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
