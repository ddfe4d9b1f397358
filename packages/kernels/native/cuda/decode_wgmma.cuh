// The kernel behind decode_wgmma.h: block (item, KV head, share of the splits). Its last warp fetches keys and values by TMA, 64 tokens a
// stage, one box for each KV block and 64 dimensions; one warpgroup computes
//
//   S' = K Q'   [64 tokens, pairs]   keys K-major, queries K-major
//   O' += V' P  [dimensions, pairs]  values as they lie: M-major; P by way of shared memory, [pairs][64 tokens]
//
// so that nothing is padded to 64 rows but the pairs to 8. Two barriers a tile: the largest score of each pair over the four
// warps, and P before it is read by wgmma.
#pragma once
#include <cmath>

#include "decode_wgmma.h"
#include "hopper_pack.h"
#include "hopper_wgmma.h"
#include "paged_tiles_wgmma.cuh"

namespace variator::cuda::hopper {

constexpr int decodeThreads = 160, decodeTile = 64;

struct DecodeLaunch {
  TensorMap queries, keys, values;
  AttentionArguments of;
  uint32_t* arrivals;
  int group, itemTokens, outsideRow;
  int mostSplits;  // of one item
  int workers;     // blocks that share an item's splits
};

template <int headSize, int n, int stages>
struct DecodeShape {
  static constexpr int halves = headSize / 64, halfBytes = decodeTile * 128, tileBytes = halves * halfBytes;
  static constexpr int queryHalfBytes = n * 128;
  static constexpr int keysAt = halves * queryHalfBytes, valuesAt = keysAt + stages * tileBytes, weightsAt = valuesAt + stages * tileBytes;
  static constexpr int largestAt = weightsAt + n * 128, barriersAt = largestAt + 4 * n * 4;
  static constexpr int sharedBytes = barriersAt + (1 + 4 * stages) * static_cast<int>(sizeof(Barrier)) + 16;
  static constexpr int partStride = n * (headSize + 2);  // sums [n][headSize], then (most, sum) of each pair
  static_assert(sharedBytes <= 227 << 10);
};

struct DecodeItem {
  int sequence, kvHead, firstPair, pairEnd, rowStart, context, keyEnd, firstKey, firstSplit, splitEnd, split, firstTile, tileEnd;
};

DEVICE DecodeItem decodeItemOf(const DecodeLaunch& launch) {
  const AttentionArguments& a = launch.of;
  DecodeItem item{};
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
  item.firstKey = a.windowTokens > 0 && firstSeen > 0 ? firstSeen : 0;
  item.firstSplit = item.firstKey / a.splitTokens;
  item.splitEnd = (item.keyEnd + a.splitTokens - 1) / a.splitTokens;
  return item;
}

DEVICE void takeSplit(const AttentionArguments& a, DecodeItem& item, int split) {
  const int from = split * a.splitTokens, to = from + a.splitTokens;
  item.split = split;
  item.firstTile = (from > item.firstKey ? from : item.firstKey) / decodeTile;
  item.tileEnd = ((to < item.keyEnd ? to : item.keyEnd) + decodeTile - 1) / decodeTile;
}

DEVICE float maxOverRows(float value) {
  value = fmaxf(value, shuffleXor(value, 4));
  value = fmaxf(value, shuffleXor(value, 8));
  return fmaxf(value, shuffleXor(value, 16));
}
DEVICE float sumOverRows(float value) {
  value = addRounded(value, shuffleXor(value, 4));
  value = addRounded(value, shuffleXor(value, 8));
  return addRounded(value, shuffleXor(value, 16));
}

/** What is beyond the last key in its block may be anything; its values must be zero, since 0 x NaN is NaN. */
template <int halves>
DEVICE void clearValuesBeyond(uint8_t* values, int first, int threads) {
  const int last = (first + kvBlockTokens - 1) / kvBlockTokens * kvBlockTokens, count = (last - first) * 8;
  for (int half = 0; half < halves; half++) {
    uint8_t* from = values + half * decodeTile * 128 + first * 128;
    for (int unit = static_cast<int>(thread()); unit < count; unit += threads) store16(from + unit * 16, {{0, 0, 0, 0}});
    fenceAsyncProxy(from, static_cast<uint32_t>(count * 16));
  }
}

/** Accumulator i of a thread belongs to its pair columnSlot(i), of n / 4 in all. */
DEVICE constexpr int columnSlot(int i) { return i / 4 * 2 + i % 2; }

template <int headSize, int n, int stages>
struct DecodeSums {
  float out[headSize / 64][n / 2];
  float most[n / 4], sum[n / 4];  // in units of log2; sums over all tokens when finished
};

template <int headSize, int n, int stages>
DEVICE void decodeTiles(const DecodeLaunch& launch, const DecodeItem& item, uint8_t* shared, const PagedTileBarriers& barriers,
                        RingCursor<stages>& at, DecodeSums<headSize, n, stages>& sums) {
  using Shape = DecodeShape<headSize, n, stages>;
  const int t = static_cast<int>(thread());
  const uint32_t start = sharedAddress(shared);
  uint8_t* weights = shared + Shape::weightsAt;
  auto* largest = reinterpret_cast<float*>(shared + Shape::largestAt);
  const bool signals = lane() == 0;
  const float scaleLog2 = launch.of.scale * 1.4426950408889634f;
  int position[n / 4];
#pragma unroll
  for (int slot = 0; slot < n / 4; slot++) {
    position[slot] = item.context + (item.firstPair + accumulatorColumn(t, slot / 2) + slot % 2) / launch.group;
    sums.most[slot] = -INFINITY;
    sums.sum[slot] = 0;
  }
#pragma unroll
  for (int half = 0; half < Shape::halves; half++) {
#pragma unroll
    for (int i = 0; i < n / 2; i++) sums.out[half][i] = 0;
  }
  barrierWait(barriers.queries, 0);
  float scores[n / 2];
  for (int tile = item.firstTile; tile < item.tileEnd; tile++) {
    barrierWait(&barriers.keysFull[at.stage], at.parity);
    const uint32_t keys = start + static_cast<uint32_t>(Shape::keysAt + at.stage * Shape::tileBytes);
    pinRegisters(scores);
    wgmmaFence();
#pragma unroll
    for (int k = 0; k < headSize / 16; k++) {
      wgmmaBf16<n>(scores, describeKMajor(keys + static_cast<uint32_t>(k / 4 * Shape::halfBytes + k % 4 * 32)),
                   describeKMajor(start + static_cast<uint32_t>(k / 4 * Shape::queryHalfBytes + k % 4 * 32)), k > 0);
    }
    wgmmaCommit();
    wgmmaWait<0>();
    pinRegisters(scores);
    if (signals) barrierArrive(&barriers.keysEmpty[at.stage]);

    float found[n / 4];
#pragma unroll
    for (int slot = 0; slot < n / 4; slot++) found[slot] = -INFINITY;
#pragma unroll
    for (int i = 0; i < n / 2; i++) {
      const int token = tile * decodeTile + accumulatorRow(t, i / 2 % 2 != 0), slot = columnSlot(i);
      const bool isSeen = token <= position[slot] && (launch.of.windowTokens == 0 || token > position[slot] - launch.of.windowTokens);
      scores[i] = isSeen ? multiplyRounded(scores[i], scaleLog2) : -INFINITY;
      found[slot] = fmaxf(found[slot], scores[i]);
    }
#pragma unroll
    for (int slot = 0; slot < n / 4; slot++) {
      found[slot] = maxOverRows(found[slot]);
      if (lane() < 4) largest[static_cast<int>(warp()) * n + accumulatorColumn(t, slot / 2) + slot % 2] = found[slot];
    }
    syncNamed(1, 128);
    float base[n / 4];
#pragma unroll
    for (int slot = 0; slot < n / 4; slot++) {
      const float* of = largest + accumulatorColumn(t, slot / 2) + slot % 2;
      const float most = fmaxf(sums.most[slot], fmaxf(fmaxf(of[0], of[n]), fmaxf(of[2 * n], of[3 * n])));
      base[slot] = most == -INFINITY ? 0.0f : most;
      const float keep = exp2Fast(addRounded(sums.most[slot], -base[slot]));
      sums.most[slot] = most;
      sums.sum[slot] = multiplyRounded(sums.sum[slot], keep);
#pragma unroll
      for (int half = 0; half < Shape::halves; half++) {
#pragma unroll
        for (int i = 0; i < n / 2; i++) {
          if (columnSlot(i) == slot) sums.out[half][i] = multiplyRounded(sums.out[half][i], keep);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < n / 2; i++) {
      const float weight = exp2Fast(addRounded(scores[i], -base[columnSlot(i)]));
      sums.sum[columnSlot(i)] = addRounded(sums.sum[columnSlot(i)], weight);
      const auto pair = static_cast<uint32_t>(accumulatorColumn(t, i / 4) + i % 2);
      const auto token = static_cast<uint32_t>(accumulatorRow(t, i / 2 % 2 != 0));
      *reinterpret_cast<Bf16*>(weights + swizzledOffset(pair, token * 2)) = toBf16(weight);
    }
    barrierWait(&barriers.valuesFull[at.stage], at.parity);
    const int values = Shape::valuesAt + at.stage * Shape::tileBytes, within = item.keyEnd - tile * decodeTile;
    if (within < decodeTile && within % kvBlockTokens != 0) clearValuesBeyond<Shape::halves>(shared + values, within, 128);
    fenceAsyncProxy(weights, n * 128);
    syncNamed(1, 128);
#pragma unroll
    for (int half = 0; half < Shape::halves; half++) pinRegisters(sums.out[half]);
    wgmmaFence();
#pragma unroll
    for (int half = 0; half < Shape::halves; half++) {
#pragma unroll
      for (int k = 0; k < decodeTile / 16; k++) {
        const uint32_t from = start + static_cast<uint32_t>(values + half * Shape::halfBytes + k * 2048);
        wgmmaBf16<n, Major::mn>(sums.out[half], describeMnMajor(from, Shape::halfBytes), describeKMajor(start + static_cast<uint32_t>(Shape::weightsAt + k * 32)), true);
      }
    }
    wgmmaCommit();
    wgmmaWait<0>();
#pragma unroll
    for (int half = 0; half < Shape::halves; half++) pinRegisters(sums.out[half]);
    if (signals) barrierArrive(&barriers.valuesEmpty[at.stage]);
    at.advance();
  }
  // Sums over the tokens of all lanes and warps, in one order.
  syncNamed(1, 128);
#pragma unroll
  for (int slot = 0; slot < n / 4; slot++) {
    const float own = sumOverRows(sums.sum[slot]);
    if (lane() < 4) largest[static_cast<int>(warp()) * n + accumulatorColumn(t, slot / 2) + slot % 2] = own;
  }
  syncNamed(1, 128);
#pragma unroll
  for (int slot = 0; slot < n / 4; slot++) {
    const float* of = largest + accumulatorColumn(t, slot / 2) + slot % 2;
    sums.sum[slot] = addRounded(addRounded(of[0], of[n]), addRounded(of[2 * n], of[3 * n]));
  }
}

/** This split's sums to `part`, as described at partStride. */
template <int headSize, int n, int stages>
DEVICE void storePart(float* part, const DecodeSums<headSize, n, stages>& sums) {
  const int t = static_cast<int>(thread());
#pragma unroll
  for (int half = 0; half < headSize / 64; half++) {
#pragma unroll
    for (int i = 0; i < n / 2; i++) {
      const int pair = accumulatorColumn(t, i / 4) + i % 2, dimension = half * 64 + accumulatorRow(t, i / 2 % 2 != 0);
      part[pair * headSize + dimension] = sums.out[half][i];
    }
  }
  if (t >= 4) return;
#pragma unroll
  for (int slot = 0; slot < n / 4; slot++) {
    float* stat = part + n * headSize + 2 * (accumulatorColumn(t, slot / 2) + slot % 2);
    stat[0] = sums.most[slot];
    stat[1] = sums.sum[slot];
  }
}

/** All splits of an item, one after another, to its rows. */
template <int headSize, int n, int stages>
DEVICE void combineParts(const DecodeLaunch& launch, const DecodeItem& item, const float* parts, int count) {
  constexpr int stride = DecodeShape<headSize, n, stages>::partStride, units = headSize / 8;
  for (int unit = static_cast<int>(thread()); unit < (item.pairEnd - item.firstPair) * units; unit += 128) {
    const int pair = unit / units, column = unit % units * 8;
    const float* stats = parts + n * headSize + 2 * pair;
    float most = -INFINITY, total = 0, sum[8] = {};
    for (int s = 0; s < count; s++) most = fmaxf(most, stats[s * stride]);
    for (int s = 0; s < count; s++) {
      const float weight = stats[s * stride] == -INFINITY ? 0.0f : exp2Fast(addRounded(stats[s * stride], -most));
      total = multiplyAdd(stats[s * stride + 1], weight, total);
      const float* from = parts + s * stride + pair * headSize + column;
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const Bytes16 four = load16(from + 4 * half);
#pragma unroll
        for (int i = 0; i < 4; i++) sum[4 * half + i] = multiplyAdd(floatOfBits(four.words[i]), weight, sum[4 * half + i]);
      }
    }
    const float inverse = total > 0 ? 1.0f / total : 0.0f;
    Bytes16 eight;
#pragma unroll
    for (int i = 0; i < 4; i++) eight.words[i] = packPair(multiplyRounded(sum[2 * i], inverse), multiplyRounded(sum[2 * i + 1], inverse));
    const int ofSequence = item.firstPair + pair, token = item.rowStart + ofSequence / launch.group;
    const int head = item.kvHead * launch.group + ofSequence % launch.group;
    store16(launch.of.out + (static_cast<int64_t>(token) * launch.of.headCount + head) * headSize + column, eight);
  }
}

template <int headSize, int n, int stages>
KERNEL(decodeThreads) void decodeKernel(const GRID_CONSTANT DecodeLaunch launch) {
  using Shape = DecodeShape<headSize, n, stages>;
  uint8_t* shared = sharedMemory();
  auto* first = reinterpret_cast<Barrier*>(shared + Shape::barriersAt);
  const PagedTileBarriers barriers{first, first + 1, first + 1 + stages, first + 1 + 2 * stages, first + 1 + 3 * stages};
  auto* isLast = reinterpret_cast<uint32_t*>(first + 1 + 4 * stages);
  const int t = static_cast<int>(thread());
  if (t == 0) {
    barrierInit(barriers.queries, 1);
    for (int s = 0; s < stages; s++) {
      barrierInit(&barriers.keysFull[s], 1);
      barrierInit(&barriers.valuesFull[s], 1);
      barrierInit(&barriers.keysEmpty[s], 4);
      barrierInit(&barriers.valuesEmpty[s], 4);
    }
    fenceBarrierInit();
  }
  syncThreads();
  waitForLaunchBefore();
  letLaunchAfterStart();
  DecodeItem item = decodeItemOf(launch);
  const int firstSplit = item.firstSplit + static_cast<int>(blockIndex().z);
  if (item.sequence < 0 || firstSplit >= item.splitEnd) return;
  RingCursor<stages> at;
  if (t >= 128) {
    fetchQueries<Shape>(launch, item, shared, barriers, Shape::queryHalfBytes);
    for (int split = firstSplit; split < item.splitEnd; split += launch.workers) {
      takeSplit(launch.of, item, split);
      fetchPagedTiles<Shape, stages>(launch, item, shared, barriers, at);
    }
    return;
  }
  const int count = item.splitEnd - item.firstSplit, place = static_cast<int>(blockIndex().x) * launch.of.kvHeadCount + item.kvHead;
  const int64_t firstPart = launch.of.partialStarts != nullptr
                                ? static_cast<int64_t>(launch.of.partialStarts[item.sequence]) * launch.of.kvHeadCount + item.kvHead * count
                                : static_cast<int64_t>(place) * launch.mostSplits;
  float* parts = launch.of.partials + firstPart * Shape::partStride;
  for (int split = firstSplit; split < item.splitEnd; split += launch.workers) {
    takeSplit(launch.of, item, split);
    DecodeSums<headSize, n, stages> sums;
    decodeTiles<headSize, n, stages>(launch, item, shared, barriers, at, sums);
    storePart(parts + (split - item.firstSplit) * Shape::partStride, sums);
    threadFence();
    syncNamed(1, 128);
    if (count > 1) {
      if (t == 0) {
        *isLast = atomicAddTo(launch.arrivals + place, 1u) + 1 == static_cast<uint32_t>(count) ? 1 : 0;
        if (*isLast != 0) launch.arrivals[place] = 0;
        threadFence();
      }
      syncNamed(1, 128);
      if (*isLast == 0) continue;
    }
    combineParts<headSize, n, stages>(launch, item, parts, count);
  }
}

}  // namespace variator::cuda::hopper
