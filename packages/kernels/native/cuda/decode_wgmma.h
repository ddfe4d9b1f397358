// Attention of decoding rows and drafts over the paged KV cache on sm_90a, the operands exchanged: 64 tokens are wgmma's M
// side, the (token, head) pairs that share a KV head its N of 8 or 16. Called by the step for items of few pairs. The
// context is cut at multiples of `splitTokens`, a block each, and whoever comes last adds the parts in their order: a row's
// bits depend on its position alone, not on its neighbours. They are not those of attention.h.
#pragma once
#include <vector>

#include "attention.h"

namespace variator::cuda {

struct DecodeVariant {
  int headSize;   // 64 or 128
  int mostPairs;  // wgmma's N: 8 or 16
  int stages;     // of 64 keys and values
};

/** Every variant that is compiled. */
const std::vector<DecodeVariant>& decodeVariants();
/** Pairs that an item covers: whole tokens. itemFirstPairs are multiples of it. 0: a token has more heads to a KV head. */
int32_t decodePairsPerItem(const DecodeVariant& variant, int32_t headCount, int32_t kvHeadCount);
/** float32 numbers of one item's split and KV head among `partials`. */
int64_t decodePartStride(const DecodeVariant& variant);
/** Those that `partials` needs without partialStarts, where no context is longer than mostTokens. */
int64_t decodePartialCount(const DecodeVariant& variant, const AttentionArguments& arguments, int32_t mostTokens);
/**
 * As attend, with items of decodePairsPerItem. splitWorkers: so many blocks share an item's splits; 0: one block each. partialStarts:
 * where each sequence has one item of one token, its first split among all sequences', as for attend; null: every item has room
 * for mostTokens. arrivals: itemCount * kvHeadCount zeros, zeros again afterwards.
 */
void decodeByWgmma(const DecodeVariant& variant, const AttentionArguments& arguments, uint32_t* arrivals, int32_t mostTokens,
                   int32_t tokenCount, int32_t kvBlockCount, Stream stream);

}  // namespace variator::cuda
