// Attention of prompt chunks over the paged KV cache on sm_90a, for 64 or 128 dimensions a head: tiles of 128 (token, head)
// pairs against tiles of 128 tokens. Called by the step for chunks. Tiles of tokens lie at multiples of 128 of the context
// and are taken in their order, so a row's bits do not depend on where a chunk began; they are not those of attention.h.
// Refuses other head sizes, and groups of more than 128 heads to a KV head.
#pragma once
#include <vector>

#include "attention.h"

namespace variator::cuda {

struct PrefillVariant {
  int headSize;  // 64 or 128
  int stages;    // of keys and of values
  bool takesTurns;  // the two warpgroups issue their products in turn, so that one's softmax runs beside the other's products
};

/** Every variant that is compiled. */
const std::vector<PrefillVariant>& prefillVariants();
/** Pairs that an item covers: whole tokens, 128 pairs at most. itemFirstPairs are multiples of it. */
int32_t prefillPairsPerItem(int32_t headCount, int32_t kvHeadCount);
/** As attend, with items of prefillPairsPerItem; split fields are not looked at. kvBlockCount: blocks of the cache. */
void prefillByWgmma(const PrefillVariant& variant, const AttentionArguments& arguments, int32_t tokenCount, int32_t kvBlockCount, Stream stream);

}  // namespace variator::cuda
