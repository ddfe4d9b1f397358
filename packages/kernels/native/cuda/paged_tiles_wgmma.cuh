// How the attention kernels for wgmma get what they read: one warp, by TMA, the queries of an item once and then its keys and
// values tile by tile through two rings. Called by the fetching warp of decode_wgmma.cuh and of prefill_wgmma.cuh.
#pragma once
#include "attention.h"
#include "hopper_tma.h"

namespace variator::cuda::hopper {

struct PagedTileBarriers {
  Barrier *queries, *keysFull, *keysEmpty, *valuesFull, *valuesEmpty;
};

/** An item's queries, once. `Shape`: as below. */
template <typename Shape, typename Launch, typename Item>
DEVICE void fetchQueries(const Launch& launch, const Item& item, uint8_t* shared, const PagedTileBarriers& barriers, int queryHalfBytes) {
  if (lane() != 0) return;
  barrierArriveExpect(barriers.queries, static_cast<uint32_t>(Shape::halves * launch.itemTokens * launch.group * 128));
  for (int half = 0; half < Shape::halves; half++) {
    loadBox(shared + half * queryHalfBytes, &launch.queries, barriers.queries, 64 * half, item.kvHead * launch.group,
            item.rowStart + item.firstPair / launch.group);
  }
}

/**
 * The item's tiles from firstTile to tileEnd, on from where the rings are. A KV block is one box for each 64 dimensions; each lane
 * fetches one box of a tile. `Shape`: halves of 64 dimensions, bytes of a tile and of its half, places of both rings. Blocks
 * behind the item's last key are boxes outside the matrix, hence zeros.
 */
template <typename Shape, int stages, typename Launch, typename Item>
DEVICE void fetchPagedTiles(const Launch& launch, const Item& item, uint8_t* shared, const PagedTileBarriers& barriers, RingCursor<stages>& at) {
  constexpr int tileBlocks = Shape::halfBytes / 128 / kvBlockTokens;
  const int i = static_cast<int>(lane());
  const int* table = launch.of.blockTables + static_cast<int64_t>(item.sequence) * launch.of.blockTableStride;
  const int blockEnd = (item.keyEnd + kvBlockTokens - 1) / kvBlockTokens;
  const int place = i % tileBlocks, half = i / tileBlocks;
  for (int tile = item.firstTile; tile < item.tileEnd; tile++) {
    const int block = tile * tileBlocks + place;
    const int row = block < blockEnd ? (table[block] * launch.of.kvHeadCount + item.kvHead) * kvBlockTokens : launch.outsideRow;
    for (int isValue = 0; isValue < 2; isValue++) {
      Barrier* full = (isValue != 0 ? barriers.valuesFull : barriers.keysFull) + at.stage;
      barrierWait((isValue != 0 ? barriers.valuesEmpty : barriers.keysEmpty) + at.stage, at.parity ^ 1);
      if (i == 0) barrierArriveExpect(full, Shape::tileBytes);
      syncWarp();
      if (half < Shape::halves) {
        uint8_t* to = shared + (isValue != 0 ? Shape::valuesAt : Shape::keysAt) + at.stage * Shape::tileBytes + half * Shape::halfBytes;
        loadBox(to + place * kvBlockTokens * 128, isValue != 0 ? &launch.values : &launch.keys, full, 64 * half, row);
      }
    }
    at.advance();
  }
}

}  // namespace variator::cuda::hopper
