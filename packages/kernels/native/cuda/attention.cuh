// The kernels of attention.h, over keys and values of any format. A block has four warps for each tile of 16 pairs, one a slice
// of tokens; keys and values of 64 tokens come through a ring of two cp.async stages. Shared memory, rows filled up by 16
// bytes so that ldmatrix meets no bank twice:
//   queries [16 rowTiles], stages of keys [64] and values [64] (of e4m3 with their scales), a split's sums [16 rowTiles]
//   float32, (most, sum) by slice
// Where there are scales, a key's is taken into its score, a value's into its
// weight. Used by attention.cu and attention_fp8.cu, which instantiate it.
#pragma once
#include <cmath>

#include "../native_fault.h"
#include "attention_kv.cuh"

namespace variator::cuda {

namespace attention {

constexpr int tileTokens = attentionTileTokens, slices = 4, stages = 2;

template <typename Kv, int headSize, int rowTiles>
struct Layout {
  static constexpr int threads = 32 * slices * rowTiles, pairs = 16 * rowTiles;
  static constexpr int queryBytes = headSize * 2 + 16, chunks = headSize / 8;  // of a row of queries
  static constexpr int rowBytes = headSize * Kv::elementBytes + 16, kvChunks = headSize * Kv::elementBytes / 16;
  static constexpr int scalesAt = 2 * tileTokens * rowBytes;  // of a stage: scales of keys [64], of values [64]
  static constexpr int stageBytes = scalesAt + 2 * tileTokens * Kv::scaleBytes;
  static constexpr int sumStride = headSize + 4;
  static constexpr int stagesAt = pairs * queryBytes;
  static constexpr int sumsAt = stagesAt + stages * stageBytes;
  static constexpr int statsAt = sumsAt + pairs * sumStride * 4;
  static constexpr int sharedBytes = statsAt + rowTiles * slices * 16 * 8;
};

constexpr float nothing = -INFINITY;

// What is subtracted from scores: 0 where there are none yet, so that e^(-inf - 0) is 0 and not e^(nan).
DEVICE float finite(float most) { return most == nothing ? 0.0f : most; }

// A running softmax takes in what was summed apart: the same lines in the loop over splits and in combineSplits.
struct Fold {
  float most = nothing, sum = 0;
  float keep, take;  // what the two sides' sums are multiplied by
  DEVICE void next(float splitMost, float splitSum) {
    const float before = most;
    most = splitMost > most ? splitMost : most;
    keep = exp2Fast(addRounded(before, -finite(most)));
    take = exp2Fast(addRounded(splitMost, -finite(most)));
    sum = multiplyAdd(splitSum, take, multiplyRounded(sum, keep));
  }
  DEVICE float fold(float running, float split) const { return multiplyAdd(split, take, multiplyRounded(running, keep)); }
};

struct Stat {
  float most, sum;
};

template <typename Kv, int headSize, int rowTiles>
KERNEL((Layout<Kv, headSize, rowTiles>::threads))
void attendItem(const AttentionArguments a) {
  using L = Layout<Kv, headSize, rowTiles>;
  const int32_t sequence = a.itemSequences[blockIndex().x];
  if (sequence < 0) return;
  const int32_t kvHead = static_cast<int32_t>(blockIndex().y), group = a.headCount / a.kvHeadCount;
  const int32_t firstPair = a.itemFirstPairs[blockIndex().x];
  const int32_t rowStart = a.tokenStarts[sequence], context = a.contextLengths[sequence];
  const int32_t pairCount = (a.tokenStarts[sequence + 1] - rowStart) * group;
  const int32_t pairEnd = firstPair + L::pairs < pairCount ? firstPair + L::pairs : pairCount;
  const int32_t keyEnd = context + (pairEnd - 1) / group + 1;
  const int32_t firstSeen = context + firstPair / group - a.windowTokens + 1;
  const int32_t firstKey = a.windowTokens > 0 && firstSeen > 0 ? firstSeen : 0;

  // This block's splits, and their tiles one after another.
  const int32_t tilesPerSplit = a.splitTokens / tileTokens;
  const int32_t tileEnd = (keyEnd + tileTokens - 1) / tileTokens, splitEnd = (tileEnd + tilesPerSplit - 1) / tilesPerSplit;
  const int32_t workers = static_cast<int32_t>(gridSize().z);
  const int32_t firstSplit = firstKey / a.splitTokens + static_cast<int32_t>(blockIndex().z);
  if (firstSplit >= splitEnd) return;
  const int32_t splitCount = (splitEnd - firstSplit + workers - 1) / workers;
  const int32_t lastSplit = firstSplit + (splitCount - 1) * workers;
  const int32_t lastTiles = tileEnd - lastSplit * tilesPerSplit;
  const int32_t tileCount = (splitCount - 1) * tilesPerSplit + (lastTiles < tilesPerSplit ? lastTiles : tilesPerSplit);

  uint8_t* shared = sharedMemory();
  const int32_t* table = a.blockTables + static_cast<int64_t>(sequence) * a.blockTableStride;
  const auto fetch = [&](int32_t index) {
    if (index < tileCount) {
      const int32_t split = firstSplit + index / tilesPerSplit * workers;
      const int32_t firstToken = (split * tilesPerSplit + index % tilesPerSplit) * tileTokens;
      uint8_t* keys = shared + L::stagesAt + index % stages * L::stageBytes;
      uint8_t* values = keys + tileTokens * L::rowBytes;
#pragma unroll
      for (int at = static_cast<int>(thread()); at < tileTokens * L::kvChunks; at += L::threads) {
        const int token = at / L::kvChunks, chunk = at % L::kvChunks;
        const int32_t position = firstToken + token;
        const bool isThere = position < keyEnd;
        int64_t from = 0;
        if (isThere) from = Kv::at(a, table[position / kvBlockTokens], kvHead, position % kvBlockTokens) + chunk * 16;
        copyAsync16(keys + token * L::rowBytes + chunk * 16, Kv::keys(a) + from, isThere ? 16 : 0);
        copyAsync16(values + token * L::rowBytes + chunk * 16, Kv::values(a) + from, isThere ? 16 : 0);
      }
      if constexpr (Kv::scaleBytes > 0) {
        // Of four tokens at once, which lie in one block; of tokens that are not there yet zeros.
        const int at = static_cast<int>(thread());
        if (at < tileTokens / 2) {
          const int token = at % (tileTokens / 4) * 4;
          const bool isValue = at >= tileTokens / 4;
          const int32_t position = firstToken + token, count = keyEnd - position;
          int64_t from = 0;
          if (count > 0) from = Kv::scaleAt(a, table[position / kvBlockTokens], kvHead, position % kvBlockTokens);
          copyAsync16(keys + L::scalesAt + ((isValue ? tileTokens : 0) + token) * 4, (isValue ? Kv::values(a) : Kv::keys(a)) + from,
                      count >= 4 ? 16u : count > 0 ? 4u * static_cast<uint32_t>(count) : 0u);
        }
      }
    }
    commitCopies();
  };
  for (int at = static_cast<int>(thread()); at < L::pairs * L::chunks; at += L::threads) {
    const int32_t pair = firstPair + at / L::chunks;
    const bool isThere = pair < pairEnd;
    const int64_t from = isThere ? static_cast<int64_t>(rowStart + pair / group) * a.queryStride + (kvHead * group + pair % group) * headSize + at % L::chunks * 8 : 0;
    copyAsync16(shared + at / L::chunks * L::queryBytes + at % L::chunks * 16, a.queries + from, isThere ? 16 : 0);
  }
  for (int stage = 0; stage < stages - 1; stage++) fetch(stage);

  const int rowTile = static_cast<int>(warp()) / slices, slice = static_cast<int>(warp()) % slices;
  const int laneRow = static_cast<int>(lane()) / 4, lanePair = static_cast<int>(lane()) % 4 * 2;
  // Keys that this lane's two rows see: [least, most].
  int32_t least[2], most[2];
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int32_t pair = firstPair + rowTile * 16 + laneRow + 8 * r;
    most[r] = pair < pairEnd ? context + pair / group : -1;
    least[r] = a.windowTokens > 0 ? most[r] - a.windowTokens + 1 : 0;
  }
  const float scale = a.scale * 1.4426950408889634f;
  const uint8_t* queries = shared + rowTile * 16 * L::queryBytes;
  float* sums = reinterpret_cast<float*>(shared + L::sumsAt) + rowTile * 16 * L::sumStride;
  Stat* stats = reinterpret_cast<Stat*>(shared + L::statsAt) + rowTile * slices * 16;

  float out[L::chunks][4] = {};
  float rowMost[2] = {nothing, nothing}, rowSum[2] = {0, 0};
  // The splits' fold: eight threads a pair, each with every fourth couple of the head's elements.
  const int foldRow = static_cast<int>(thread()) % (32 * slices) / 8, foldLane = static_cast<int>(thread()) % 8;
  const int32_t foldPair = firstPair + rowTile * 16 + foldRow;
  Fold folded;
  float running[headSize / 16][2] = {};

  for (int32_t index = 0; index < tileCount; index++) {
    waitCopies<stages - 2>();
    syncThreads();
    fetch(index + stages - 1);
    const int32_t split = firstSplit + index / tilesPerSplit * workers;
    const int32_t firstToken = (split * tilesPerSplit + index % tilesPerSplit) * tileTokens + slice * 16;
    const uint8_t* keys = shared + L::stagesAt + index % stages * L::stageBytes + slice * 16 * L::rowBytes;
    const uint8_t* values = keys + tileTokens * L::rowBytes;

    const float* scales = reinterpret_cast<const float*>(shared + L::stagesAt + index % stages * L::stageBytes + L::scalesAt) + slice * 16;

    float scores[2][4] = {};
    uint32_t raw[4];
#pragma unroll
    for (int k = 0; k < headSize / 16; k++) {
      uint32_t left[4], first[2], second[2];
      loadMatrix4(left, queries + static_cast<int>(lane()) % 16 * L::queryBytes + (2 * k + static_cast<int>(lane()) / 16) * 16);
      Kv::template keyFragments<headSize>(first, second, raw, keys, L::rowBytes, k);
      multiplyBf16(scores[0], left, first);
      multiplyBf16(scores[1], left, second);
    }

    uint32_t weights[4];
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float seen[4];
      float tileMost = rowMost[r];
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const int32_t token = firstToken + e / 2 * 8 + lanePair + e % 2;
        const bool isSeen = token <= most[r] && token >= least[r];
        float score = scores[e / 2][2 * r + e % 2];
        if constexpr (Kv::scaleBytes > 0) score = multiplyRounded(score, scales[e / 2 * 8 + lanePair + e % 2]);
        seen[e] = isSeen ? multiplyRounded(score, scale) : nothing;
        tileMost = seen[e] > tileMost ? seen[e] : tileMost;
      }
#pragma unroll
      for (uint32_t mask = 1; mask <= 2; mask *= 2) {
        const float other = shuffleXor(tileMost, mask);
        tileMost = other > tileMost ? other : tileMost;
      }
      const float base = finite(tileMost), keep = exp2Fast(addRounded(rowMost[r], -base));
      rowMost[r] = tileMost;
      rowSum[r] = multiplyRounded(rowSum[r], keep);
#pragma unroll
      for (int e = 0; e < 4; e++) {
        seen[e] = exp2Fast(addRounded(seen[e], -base));
        rowSum[r] = addRounded(rowSum[r], seen[e]);
        if constexpr (Kv::scaleBytes > 0) seen[e] = multiplyRounded(seen[e], scales[tileTokens + e / 2 * 8 + lanePair + e % 2]);
      }
      weights[r] = pairOf(seen[0], seen[1]);
      weights[r + 2] = pairOf(seen[2], seen[3]);
#pragma unroll
      for (int c = 0; c < L::chunks; c++) {
        out[c][2 * r] = multiplyRounded(out[c][2 * r], keep);
        out[c][2 * r + 1] = multiplyRounded(out[c][2 * r + 1], keep);
      }
    }
#pragma unroll
    for (int c = 0; c < L::chunks; c += 2) {
      uint32_t first[2], second[2];
      Kv::template valueFragments<headSize>(first, second, raw, values, L::rowBytes, c / 2);
      multiplyBf16(out[c], weights, first);
      multiplyBf16(out[c + 1], weights, second);
    }
    if ((index + 1) % tilesPerSplit != 0 && index + 1 < tileCount) continue;

    // A split's end: the slices come together.
#pragma unroll
    for (int r = 0; r < 2; r++) {
      rowSum[r] = addRounded(rowSum[r], shuffleXor(rowSum[r], 1));
      rowSum[r] = addRounded(rowSum[r], shuffleXor(rowSum[r], 2));
      if (lane() % 4 == 0) stats[slice * 16 + laneRow + 8 * r] = {rowMost[r], rowSum[r]};
    }
    syncThreads();
    const auto mostOfRow = [&](int row) {
      float value = stats[row].most;
#pragma unroll
      for (int s = 1; s < slices; s++) value = stats[s * 16 + row].most > value ? stats[s * 16 + row].most : value;
      return value;
    };
    float factors[2];
#pragma unroll
    for (int r = 0; r < 2; r++) factors[r] = exp2Fast(addRounded(rowMost[r], -finite(mostOfRow(laneRow + 8 * r))));
#pragma unroll
    for (int s = 0; s < slices; s++) {
      if (slice == s) {
#pragma unroll
        for (int c = 0; c < L::chunks; c++) {
#pragma unroll
          for (int e = 0; e < 4; e++) {
            float& sum = sums[(laneRow + e / 2 * 8) * L::sumStride + c * 8 + lanePair + e % 2];
            sum = s == 0 ? multiplyRounded(out[c][e], factors[e / 2]) : multiplyAdd(out[c][e], factors[e / 2], sum);
            out[c][e] = 0;
          }
        }
      }
      syncThreads();
    }
    const float splitMost = mostOfRow(foldRow);
    float splitSum = 0;
#pragma unroll
    for (int s = 0; s < slices; s++) {
      splitSum = multiplyAdd(stats[s * 16 + foldRow].sum, exp2Fast(addRounded(stats[s * 16 + foldRow].most, -finite(splitMost))), splitSum);
    }
    const float* own = sums + foldRow * L::sumStride + 2 * foldLane;
    if (a.splitWorkers > 0) {
      if (foldPair < pairEnd) {
        float* to = a.partials + (static_cast<int64_t>(a.partialStarts[sequence] + split) * a.headCount + kvHead * group + foldPair % group) * (headSize + 2);
#pragma unroll
        for (int i = 0; i < headSize / 16; i++) {
          to[16 * i + 2 * foldLane] = own[16 * i];
          to[16 * i + 2 * foldLane + 1] = own[16 * i + 1];
        }
        if (foldLane == 0) {
          to[headSize] = splitMost;
          to[headSize + 1] = splitSum;
        }
      }
    } else {
      folded.next(splitMost, splitSum);
#pragma unroll
      for (int i = 0; i < headSize / 16; i++) {
        running[i][0] = folded.fold(running[i][0], own[16 * i]);
        running[i][1] = folded.fold(running[i][1], own[16 * i + 1]);
      }
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
      rowMost[r] = nothing;
      rowSum[r] = 0;
    }
  }
  waitCopies<0>();
  if (a.splitWorkers > 0 || foldPair >= pairEnd) return;
  Bf16* to = a.out + static_cast<int64_t>(rowStart + foldPair / group) * a.headCount * headSize + (kvHead * group + foldPair % group) * headSize + 2 * foldLane;
#pragma unroll
  for (int i = 0; i < headSize / 16; i++) {
    to[16 * i] = toBf16(running[i][0] / folded.sum);
    to[16 * i + 1] = toBf16(running[i][1] / folded.sum);
  }
}

// A warp a head of an item's token.
template <int headSize>
KERNEL(32)
void combineSplits(const AttentionArguments a) {
  constexpr int perLane = (headSize + 31) / 32;
  const int32_t sequence = a.itemSequences[blockIndex().x];
  if (sequence < 0 || a.itemFirstPairs[blockIndex().x] != 0) return;
  const int32_t head = static_cast<int32_t>(blockIndex().y);
  const int32_t position = a.contextLengths[sequence];
  const int32_t firstKey = a.windowTokens > 0 && position >= a.windowTokens ? position - a.windowTokens + 1 : 0;
  Fold folded;
  float running[perLane] = {};
  for (int32_t split = firstKey / a.splitTokens; split <= position / a.splitTokens; split++) {
    const float* from = a.partials + (static_cast<int64_t>(a.partialStarts[sequence] + split) * a.headCount + head) * (headSize + 2);
    folded.next(from[headSize], from[headSize + 1]);
#pragma unroll
    for (int i = 0; i < perLane; i++) {
      const int at = static_cast<int>(lane()) + 32 * i;
      if (at < headSize) running[i] = folded.fold(running[i], from[at]);
    }
  }
  Bf16* to = a.out + (static_cast<int64_t>(a.tokenStarts[sequence]) * a.headCount + head) * headSize;
#pragma unroll
  for (int i = 0; i < perLane; i++) {
    const int at = static_cast<int>(lane()) + 32 * i;
    if (at < headSize) to[at] = toBf16(running[i] / folded.sum);
  }
}

template <typename Kv, int headSize, int rowTiles>
void run(const AttentionArguments& a, Stream stream) {
  using L = Layout<Kv, headSize, rowTiles>;
  const Size3 grid{static_cast<uint32_t>(a.itemCount), static_cast<uint32_t>(a.kvHeadCount),
                   a.splitWorkers > 0 ? static_cast<uint32_t>(a.splitWorkers) : 1u};
  launch("attend", attendItem<Kv, headSize, rowTiles>, {grid, {L::threads}, L::sharedBytes}, stream, a);
  if (a.splitWorkers > 0) {
    launch("combineSplits", combineSplits<headSize>, {{grid.x, static_cast<uint32_t>(a.headCount)}, {32}}, stream, a);
  }
}

template <typename Kv, int headSize>
void runTiles(const AttentionArguments& a, int32_t rowTiles, Stream stream) {
  if (rowTiles == 1) run<Kv, headSize, 1>(a, stream);
  else if (rowTiles == 2) run<Kv, headSize, 2>(a, stream);
  else if (rowTiles == 4) run<Kv, headSize, 4>(a, stream);
  else throw NativeFault("attend: rowTiles must be 1, 2 or 4");
}

template <typename Kv>
void runHeads(const AttentionArguments& a, int32_t rowTiles, Stream stream) {
  switch (a.headSize) {
    case 16: return runTiles<Kv, 16>(a, rowTiles, stream);
    case 32: return runTiles<Kv, 32>(a, rowTiles, stream);
    case 64: return runTiles<Kv, 64>(a, rowTiles, stream);
    case 96: return runTiles<Kv, 96>(a, rowTiles, stream);
    case 128: return runTiles<Kv, 128>(a, rowTiles, stream);
    default: throw NativeFault("attend: there is no kernel for heads of " + std::to_string(a.headSize));
  }
}

}  // namespace attention
}  // namespace variator::cuda
