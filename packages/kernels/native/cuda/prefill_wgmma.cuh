// The kernel behind prefill_wgmma.h, after FlashAttention-3 (Shah et al., 2024): a warp fetches by TMA, two warpgroups of
// 64 pairs multiply, and each computes the scores of tile j + 1 while it multiplies the probabilities of tile j by V.
//
//   shared   queries [halves][128][64], ring of keys [halves][128 tokens][64], ring of values likewise; 128-byte swizzle
//   S = Q K^T   both K-major from shared memory       O += P V   P from registers, V as it lies: N-major
//
// A KV block is 16 tokens of one head: one box of 16 rows for each 64 dimensions. Blocks beyond the last key are boxes
// outside the matrix, hence zeros; the rest of the last block may hold anything and is set to zero before V is used.
#pragma once
#include <cmath>

#include "hopper_pack.h"
#include "hopper_wgmma.h"
#include "paged_tiles_wgmma.cuh"
#include "prefill_wgmma.h"

namespace variator::cuda::hopper {

constexpr int prefillThreads = 384, prefillTile = 128;

struct PrefillLaunch {
  TensorMap queries, keys, values;
  AttentionArguments of;
  int group, itemTokens, outsideRow;
};

template <int headSize, int stages>
struct PrefillShape {
  static constexpr int halves = headSize / 64, halfBytes = prefillTile * 128, tileBytes = halves * halfBytes;
  static constexpr int keysAt = tileBytes, valuesAt = keysAt + stages * tileBytes, barriersAt = valuesAt + stages * tileBytes;
  static constexpr int sharedBytes = barriersAt + (1 + 4 * stages) * static_cast<int>(sizeof(Barrier));
  static_assert(sharedBytes <= 227 << 10);
};

/** What a block works on: pairs [firstPair, pairEnd) of a sequence, keys [firstKey, keyEnd) in tiles. */
struct PrefillItem {
  int sequence, kvHead, firstPair, pairEnd, rowStart, context, keyEnd, firstTile, tileEnd;
};

DEVICE PrefillItem prefillItemOf(const PrefillLaunch& launch) {
  const AttentionArguments& a = launch.of;
  PrefillItem item;
  item.sequence = a.itemSequences[blockIndex().x];
  if (item.sequence < 0) return item;
  item.kvHead = static_cast<int>(blockIndex().y);
  item.firstPair = a.itemFirstPairs[blockIndex().x];
  item.rowStart = a.tokenStarts[item.sequence];
  item.context = a.contextLengths[item.sequence];
  const int pairs = (a.tokenStarts[item.sequence + 1] - item.rowStart) * launch.group, covered = launch.itemTokens * launch.group;
  item.pairEnd = item.firstPair + covered < pairs ? item.firstPair + covered : pairs;
  item.keyEnd = item.context + (item.pairEnd - 1) / launch.group + 1;
  const int firstSeen = item.context + item.firstPair / launch.group - a.windowTokens + 1;
  item.firstTile = a.windowTokens > 0 && firstSeen > 0 ? firstSeen / prefillTile : 0;
  item.tileEnd = (item.keyEnd + prefillTile - 1) / prefillTile;
  return item;
}

/** The running softmax of a thread's two rows; sums are the thread's own until the end. */
struct PrefillSoftmax {
  float most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};

  /** scores become probabilities relative to the new maxima; keep: what earlier sums are multiplied by. */
  DEVICE void take(float (&scores)[64], float scaleLog2, float (&keep)[2]) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float largest = most[r];
#pragma unroll
      for (int i = 0; i < 64; i++) {
        if (i / 2 % 2 == r) largest = fmaxf(largest, scores[i]);
      }
      largest = fmaxf(largest, shuffleXor(largest, 1));
      largest = fmaxf(largest, shuffleXor(largest, 2));
      const float base = largest == -INFINITY ? 0.0f : multiplyRounded(largest, scaleLog2);
      keep[r] = exp2Fast(multiplyAdd(most[r], scaleLog2, -base));
      most[r] = largest;
      float own = 0;
#pragma unroll
      for (int i = 0; i < 64; i++) {
        if (i / 2 % 2 != r) continue;
        scores[i] = exp2Fast(multiplyAdd(scores[i], scaleLog2, -base));
        own = addRounded(own, scores[i]);
      }
      sum[r] = multiplyAdd(sum[r], keep[r], own);
    }
  }
};

/** Scores of tokens that a row may not see become -infinity. */
DEVICE void prefillMask(float (&scores)[64], int firstToken, const int (&position)[2], int windowTokens) {
  const int t = static_cast<int>(thread());
#pragma unroll
  for (int i = 0; i < 64; i++) {
    const int token = firstToken + accumulatorColumn(t, i / 4) + i % 2, row = i / 2 % 2;
    const bool isSeen = token <= position[row] && (windowTokens == 0 || token > position[row] - windowTokens);
    if (!isSeen) scores[i] = -INFINITY;
  }
}

template <int headSize, int stages>
DEVICE void issueScores(float (&scores)[64], uint32_t queries, uint32_t keys) {
  using Shape = PrefillShape<headSize, stages>;
#pragma unroll
  for (int k = 0; k < headSize / 16; k++) {
    const uint32_t offset = static_cast<uint32_t>(k / 4 * Shape::halfBytes + k % 4 * 32);
    wgmmaBf16<prefillTile>(scores, describeKMajor(queries + offset), describeKMajor(keys + offset), k > 0);
  }
  wgmmaCommit();
}

template <int headSize, int stages>
DEVICE void issueValues(float (&out)[headSize / 2], const uint32_t (&probabilities)[8][4], uint32_t values, bool accumulates) {
#pragma unroll
  for (int k = 0; k < prefillTile / 16; k++) {
    const uint64_t descriptor = describeMnMajor(values + static_cast<uint32_t>(k * 2048), PrefillShape<headSize, stages>::halfBytes);
    wgmmaBf16<headSize, Major::mn>(out, probabilities[k], descriptor, accumulates || k > 0);
  }
  wgmmaCommit();
}

/** Keys beyond the last hold anything: their values must be zero, since 0 x NaN is NaN. Only within the last block. */
template <int headSize, int stages>
DEVICE void clearBeyond(uint8_t* values, int tile, int keyEnd, int consumer) {
  using Shape = PrefillShape<headSize, stages>;
  const int first = keyEnd - tile * prefillTile, last = (first + kvBlockTokens - 1) / kvBlockTokens * kvBlockTokens;
  if (first >= last || first >= prefillTile) return;
  const int t = static_cast<int>(thread() % 128), count = (last - first) * 8;
  for (int half = 0; half < Shape::halves; half++) {
    uint8_t* from = values + half * Shape::halfBytes + first * 128;
    for (int unit = t; unit < count; unit += 128) store16(from + unit * 16, {{0, 0, 0, 0}});
    fenceAsyncProxy(from, static_cast<uint32_t>(count * 16));
  }
  syncNamed(static_cast<uint32_t>(1 + consumer), 128);
}

template <int headSize, int stages, bool takesTurns>
DEVICE void prefillConsume(const PrefillLaunch& launch, const PrefillItem& item, uint8_t* shared, const PagedTileBarriers& barriers, int consumer) {
  using Shape = PrefillShape<headSize, stages>;
  const int t = static_cast<int>(thread());
  const uint32_t start = sharedAddress(shared), queries = start + static_cast<uint32_t>(consumer) * 64 * 128;
  const bool signals = lane() == 0;
  const float scaleLog2 = launch.of.scale * 1.4426950408889634f;
  int position[2];
  for (int r = 0; r < 2; r++) position[r] = item.context + (item.firstPair + consumer * 64 + accumulatorRow(t, r != 0)) / launch.group;
  const int lowest = item.context + (item.firstPair + consumer * 64) / launch.group;
  const int highest = item.context + (item.firstPair + consumer * 64 + 63) / launch.group;
  const auto isMasked = [&](int tile) {
    const int first = tile * prefillTile;
    return first + prefillTile - 1 > lowest || (launch.of.windowTokens > 0 && first <= highest - launch.of.windowTokens);
  };

  float scores[64], out[headSize / 2], keep[2];
  uint32_t probabilities[8][4];
  PrefillSoftmax softmax;
  const auto pack = [&] {
#pragma unroll
    for (int k = 0; k < 8; k++) {
#pragma unroll
      for (int r = 0; r < 4; r++) probabilities[k][r] = packPair(scores[8 * k + 2 * r], scores[8 * k + 2 * r + 1]);
    }
  };
  RingCursor<stages> atKeys, atValues;
  barrierWait(barriers.queries, 0);
  barrierWait(&barriers.keysFull[atKeys.stage], 0);
  wgmmaFence();
  issueScores<headSize, stages>(scores, queries, start + Shape::keysAt);
  wgmmaWait<0>();
  pinRegisters(scores);
  if (signals) barrierArrive(&barriers.keysEmpty[0]);
  atKeys.advance();
  if (isMasked(item.firstTile)) prefillMask(scores, item.firstTile * prefillTile, position, launch.of.windowTokens);
  softmax.take(scores, scaleLog2, keep);
  pack();
  // Turns: named barrier 3 lets the first warpgroup issue, 4 the second; each opens the other's.
  const auto turn = static_cast<uint32_t>(3 + consumer);
  if (takesTurns && consumer == 1 && item.tileEnd - item.firstTile > 1) arriveNamed(3, 256);
  for (int tile = item.firstTile + 1; tile < item.tileEnd; tile++) {
    barrierWait(&barriers.keysFull[atKeys.stage], atKeys.parity);
    if constexpr (takesTurns) syncNamed(turn, 256);
    pinRegisters(scores);
    pinRegisters(out);
    wgmmaFence();
    issueScores<headSize, stages>(scores, queries, start + Shape::keysAt + static_cast<uint32_t>(atKeys.stage * Shape::tileBytes));
    barrierWait(&barriers.valuesFull[atValues.stage], atValues.parity);
    // Without it ptxas puts one in, and with turns then serialises all products (C7520).
    wgmmaFence();
    issueValues<headSize, stages>(out, probabilities, start + Shape::valuesAt + static_cast<uint32_t>(atValues.stage * Shape::tileBytes),
                                  tile > item.firstTile + 1);
    if (takesTurns && (consumer == 0 || tile + 1 < item.tileEnd)) arriveNamed(turn ^ 7, 256);
    wgmmaWait<1>();
    pinRegisters(scores);
    if (signals) barrierArrive(&barriers.keysEmpty[atKeys.stage]);
    atKeys.advance();
    if (isMasked(tile)) prefillMask(scores, tile * prefillTile, position, launch.of.windowTokens);
    softmax.take(scores, scaleLog2, keep);
    wgmmaWait<0>();
    pinRegisters(out);
    if (signals) barrierArrive(&barriers.valuesEmpty[atValues.stage]);
    atValues.advance();
#pragma unroll
    for (int i = 0; i < headSize / 2; i++) out[i] = multiplyRounded(out[i], keep[i / 2 % 2]);
    pack();
  }
  barrierWait(&barriers.valuesFull[atValues.stage], atValues.parity);
  uint8_t* lastValues = shared + Shape::valuesAt + atValues.stage * Shape::tileBytes;
  clearBeyond<headSize, stages>(lastValues, item.tileEnd - 1, item.keyEnd, consumer);
  pinRegisters(out);
  wgmmaFence();
  issueValues<headSize, stages>(out, probabilities, sharedAddress(lastValues), item.tileEnd - item.firstTile > 1);
  wgmmaWait<0>();
  pinRegisters(out);

  // Through this warpgroup's own queries, which nobody reads any more, to rows of 16 bytes.
  float inverse[2];
  for (int r = 0; r < 2; r++) {
    float sum = addRounded(softmax.sum[r], shuffleXor(softmax.sum[r], 1));
    sum = addRounded(sum, shuffleXor(sum, 2));
    inverse[r] = sum > 0 ? 1.0f / sum : 0.0f;
  }
  uint8_t* staging = shared + consumer * 64 * 128;
#pragma unroll
  for (int i = 0; i < headSize / 2; i += 2) {
    const int row = accumulatorRow(t, i / 2 % 2 != 0), column = accumulatorColumn(t, i / 4);
    const float factor = inverse[i / 2 % 2];
    storeWord(staging + column / 64 * Shape::halfBytes + swizzledOffset(static_cast<uint32_t>(row), static_cast<uint32_t>(column % 64 * 2)),
              packPair(multiplyRounded(out[i], factor), multiplyRounded(out[i + 1], factor)));
  }
  syncNamed(static_cast<uint32_t>(1 + consumer), 128);
  constexpr int units = headSize / 8;
  for (int unit = t % 128; unit < 64 * units; unit += 128) {
    const int row = unit / units, column = unit % units * 8, pair = item.firstPair + consumer * 64 + row;
    if (pair >= item.pairEnd) break;
    const int token = item.rowStart + pair / launch.group, head = item.kvHead * launch.group + pair % launch.group;
    store16(launch.of.out + (static_cast<int64_t>(token) * launch.of.headCount + head) * headSize + column,
            load16(staging + column / 64 * Shape::halfBytes + swizzledOffset(static_cast<uint32_t>(row), static_cast<uint32_t>(column % 64 * 2))));
  }
}

template <int headSize, int stages, bool takesTurns>
KERNEL_ALONE(prefillThreads) void prefillKernel(const GRID_CONSTANT PrefillLaunch launch) {
  using Shape = PrefillShape<headSize, stages>;
  uint8_t* shared = sharedMemory();
  auto* first = reinterpret_cast<Barrier*>(shared + Shape::barriersAt);
  const PagedTileBarriers barriers{first, first + 1, first + 1 + stages, first + 1 + 2 * stages, first + 1 + 3 * stages};
  if (thread() == 0) {
    barrierInit(barriers.queries, 1);
    for (int s = 0; s < stages; s++) {
      barrierInit(&barriers.keysFull[s], 1);
      barrierInit(&barriers.valuesFull[s], 1);
      barrierInit(&barriers.keysEmpty[s], 8);
      barrierInit(&barriers.valuesEmpty[s], 8);
    }
    fenceBarrierInit();
  }
  syncThreads();
  waitForLaunchBefore();
  letLaunchAfterStart();
  const PrefillItem item = prefillItemOf(launch);
  if (item.sequence < 0) return;
  const int warpgroup = static_cast<int>(thread() / 128);
  if (warpgroup == 0) {
    lowerRegisters<40>();
    if (thread() < 32) {
      RingCursor<stages> at;
      fetchQueries<Shape>(launch, item, shared, barriers, Shape::halfBytes);
      fetchPagedTiles<Shape, stages>(launch, item, shared, barriers, at);
    }
    return;
  }
  raiseRegisters<232>();
  prefillConsume<headSize, stages, takesTurns>(launch, item, shared, barriers, warpgroup - 1);
}

}  // namespace variator::cuda::hopper
