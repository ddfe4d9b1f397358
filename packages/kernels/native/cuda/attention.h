// Attention over the paged KV cache: decoding rows, drafts and chunks of prompts by one kernel, so that a row's bits are the
// same whichever of them it is. Called by the engine once a layer and kind of row. Sums of a row:
//   context in splits of `splitTokens`, a split in tiles of 64 tokens, a tile in four slices of 16;
//   a slice's tiles one after another (online softmax), then the four slices, then the splits, each in order.
// Who computes which of them, and for how many rows at once, changes no bit; where splits end depends on the position alone.
#pragma once
#include "elementwise.h"

namespace variator::cuda {

constexpr int32_t attentionTileTokens = 64;

struct AttentionArguments {
  const Bf16* queries;  // [tokenCount, queryStride], heads first
  int32_t queryStride;
  KvLayer kv;
  const int32_t* blockTables;  // [sequences, blockTableStride]
  int32_t blockTableStride;
  const int32_t* tokenStarts;     // [sequences + 1] rows of the step
  const int32_t* contextLengths;  // [sequences] tokens before its first row
  // What a block takes: up to 16 * rowTiles (token, head) pairs of one sequence and KV head, pair = token * group + head
  // within the group. Sequence -1: nothing.
  const int32_t *itemSequences, *itemFirstPairs;  // [itemCount]
  int32_t itemCount;
  Bf16* out;  // [tokenCount, headCount * headSize]
  int32_t headCount, kvHeadCount, headSize;
  int32_t windowTokens;  // 0: all
  int32_t splitTokens;   // a multiple of 64
  float scale;           // of scores
  // Where splitWorkers > 0 an item's splits are spread over so many blocks and come together in combineSplits; for items of
  // one token. partials: [partialStarts[sequence] + split, headCount, headSize + 2].
  int32_t splitWorkers;
  float* partials;
  const int32_t* partialStarts;  // [sequences]
};

// rowTiles: 1, 2 or 4. Throws NativeFault for a head size other than 16, 32, 64, 96, 128.
void attend(const AttentionArguments& arguments, int32_t rowTiles, Stream stream);
// The part of it over keys and values in e4m3.
void attendFp8(const AttentionArguments& arguments, int32_t rowTiles, Stream stream);
bool isAttentionHeadSize(int64_t headSize);

}  // namespace variator::cuda
