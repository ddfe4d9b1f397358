// See mla_wgmma.h. Block (sequence, 64 heads, split): a warp of the last warpgroup fetches 64 tokens a stage by TMA, [9][64 tokens][64]; each of
// two warpgroups computes the scores of 32 of them for all 64 heads, hands the probabilities over in shared memory, and
// multiplies them by 256 of the 512 values, which it reads from the same stage N-major. Two barriers a stage: the largest
// score of each head, and the probabilities.
#include "mla_wgmma.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "../native_fault.h"
#include "elementwise.h"
#include "hopper_pack.h"
#include "hopper_tma.h"
#include "hopper_wgmma.h"

namespace variator::cuda {
namespace {

using namespace hopper;

constexpr int consumerThreads = 256, threads = consumerThreads + 128, stages = 2, tile = 64, chunks = mlaRowSize / 64;
constexpr int heads = mlaHeadsPerBlock, chunkBytes = tile * 128, tileBytes = chunks * chunkBytes;
constexpr int stagesAt = chunks * heads * 128, weightsAt = stagesAt + stages * tileBytes, largestAt = weightsAt + heads * 128;
constexpr int barriersAt = largestAt + 2 * heads * 4, sharedBytes = barriersAt + (1 + 2 * stages) * 8 + 16;
constexpr int partStride = heads * (mlaLatentSize + 2);  // sums [head][512], then (most, sum) of each head
constexpr int blocksOfTile = tile / kvBlockTokens;
static_assert(sharedBytes <= 227 << 10);

struct MlaLaunch {
  TensorMap queries, latents;
  MlaArguments of;
  int mostSplits;
};

DEVICE void produce(const MlaLaunch& launch, uint8_t* shared, Barrier* queries, Barrier* full, Barrier* empty, int sequence, int firstTile, int tileEnd, int count) {
  const int i = static_cast<int>(lane());
  if (i == 0) {
    barrierArriveExpect(queries, chunks * heads * 128);
    for (int chunk = 0; chunk < chunks; chunk++) {
      loadBox(shared + chunk * heads * 128, &launch.queries, queries, 64 * chunk, static_cast<int>(blockIndex().y) * heads, sequence);
    }
  }
  const int* table = launch.of.blockTables + static_cast<int64_t>(sequence) * launch.of.blockTableStride;
  const int blockEnd = (count + kvBlockTokens - 1) / kvBlockTokens;
  RingCursor<stages> at;
  for (int step = firstTile; step < tileEnd; step++) {
    barrierWait(&empty[at.stage], at.parity ^ 1);
    if (i == 0) barrierArriveExpect(&full[at.stage], tileBytes);
    syncWarp();
    for (int box = i; box < chunks * blocksOfTile; box += 32) {
      const int block = step * blocksOfTile + box % blocksOfTile, chunk = box / blocksOfTile;
      const int row = (block < blockEnd ? table[block] : launch.of.blockCount) * kvBlockTokens;
      loadBox(shared + stagesAt + at.stage * tileBytes + chunk * chunkBytes + box % blocksOfTile * kvBlockTokens * 128, &launch.latents, &full[at.stage], 64 * chunk, row);
    }
    at.advance();
  }
}

struct MlaSums {
  float out[128];          // 64 heads x this warpgroup's 256 values
  float most[2], sum[2];   // of the thread's two heads, in units of log2
};

/** Values of tokens beyond the last, in its block: they may be anything, and 0 x NaN is NaN. This warpgroup's 256. */
DEVICE void clearBeyond(uint8_t* stage, int first, int group) {
  const int last = (first + kvBlockTokens - 1) / kvBlockTokens * kvBlockTokens, units = (last - first) * 8;
  for (int chunk = 4 * group; chunk < 4 * group + 4; chunk++) {
    uint8_t* from = stage + chunk * chunkBytes + first * 128;
    for (int unit = static_cast<int>(thread() % 128); unit < units; unit += 128) store16(from + unit * 16, {{0, 0, 0, 0}});
    fenceAsyncProxy(from, static_cast<uint32_t>(units * 16));
  }
}

DEVICE float maxOfRow(float value) {
  value = fmaxf(value, shuffleXor(value, 1));
  return fmaxf(value, shuffleXor(value, 2));
}
DEVICE float sumOfRow(float value) {
  value = addRounded(value, shuffleXor(value, 1));
  return addRounded(value, shuffleXor(value, 2));
}

DEVICE void attendTiles(const MlaLaunch& launch, uint8_t* shared, Barrier* queries, Barrier* full, Barrier* empty, int firstTile, int tileEnd, int count, MlaSums& sums) {
  const int t = static_cast<int>(thread()), group = t / 128;
  const uint32_t start = sharedAddress(shared);
  auto* largest = reinterpret_cast<float*>(shared + largestAt);
  const float scaleLog2 = launch.of.scale * 1.4426950408889634f;
#pragma unroll
  for (int i = 0; i < 128; i++) sums.out[i] = 0;
  for (int r = 0; r < 2; r++) {
    sums.most[r] = -INFINITY;
    sums.sum[r] = 0;
  }
  RingCursor<stages> at;
  barrierWait(queries, 0);
  float scores[16];
  for (int step = firstTile; step < tileEnd; step++) {
    barrierWait(&full[at.stage], at.parity);
    const uint32_t stage = start + static_cast<uint32_t>(stagesAt + at.stage * tileBytes);
    pinRegisters(scores);
    wgmmaFence();
#pragma unroll
    for (int k = 0; k < mlaRowSize / 16; k++) {
      wgmmaBf16<32>(scores, describeKMajor(start + static_cast<uint32_t>(k / 4 * heads * 128 + k % 4 * 32)),
                    describeKMajor(stage + static_cast<uint32_t>(k / 4 * chunkBytes + group * 32 * 128 + k % 4 * 32)), k > 0);
    }
    wgmmaCommit();
    wgmmaWait<0>();
    pinRegisters(scores);
    float found[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int i = 0; i < 16; i++) {
      const int token = step * tile + group * 32 + accumulatorColumn(t, i / 4) + i % 2;
      scores[i] = token < count ? multiplyRounded(scores[i], scaleLog2) : -INFINITY;
      found[i / 2 % 2] = fmaxf(found[i / 2 % 2], scores[i]);
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
      found[r] = maxOfRow(found[r]);
      if (t % 4 == 0) largest[group * heads + accumulatorRow(t, r != 0)] = found[r];
    }
    syncNamed(1, consumerThreads);
    float base[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const int row = accumulatorRow(t, r != 0);
      const float most = fmaxf(sums.most[r], fmaxf(largest[row], largest[heads + row]));
      base[r] = most == -INFINITY ? 0.0f : most;
      const float keep = exp2Fast(addRounded(sums.most[r], -base[r]));
      sums.most[r] = most;
      sums.sum[r] = multiplyRounded(sums.sum[r], keep);
#pragma unroll
      for (int i = 0; i < 128; i++) {
        if (i / 2 % 2 == r) sums.out[i] = multiplyRounded(sums.out[i], keep);
      }
    }
    uint8_t* weights = shared + weightsAt;
#pragma unroll
    for (int i = 0; i < 16; i += 2) {
      const int r = i / 2 % 2;
      const float left = exp2Fast(addRounded(scores[i], -base[r])), right = exp2Fast(addRounded(scores[i + 1], -base[r]));
      sums.sum[r] = addRounded(sums.sum[r], addRounded(left, right));
      const int column = group * 32 + accumulatorColumn(t, i / 4);
      storeWord(weights + swizzledOffset(static_cast<uint32_t>(accumulatorRow(t, r != 0)), static_cast<uint32_t>(column * 2)), packPair(left, right));
    }
    const int within = count - step * tile;
    if (within < tile && within % kvBlockTokens != 0) clearBeyond(shared + stagesAt + at.stage * tileBytes, within, group);
    fenceAsyncProxy(weights, heads * 128);
    syncNamed(1, consumerThreads);
    pinRegisters(sums.out);
    wgmmaFence();
#pragma unroll
    for (int k = 0; k < tile / 16; k++) {
      wgmmaBf16<256, Major::k, Major::mn>(sums.out, describeKMajor(start + static_cast<uint32_t>(weightsAt + k * 32)),
                                          describeMnMajor(stage + static_cast<uint32_t>(4 * group * chunkBytes + k * 2048), chunkBytes), true);
    }
    wgmmaCommit();
    wgmmaWait<0>();
    pinRegisters(sums.out);
    if (lane() == 0) barrierArrive(&empty[at.stage]);
    at.advance();
  }
  // The sum of a head: lanes, then the two warpgroups, in that order.
  syncNamed(1, consumerThreads);
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const float own = sumOfRow(sums.sum[r]);
    if (t % 4 == 0) largest[group * heads + accumulatorRow(t, r != 0)] = own;
  }
  syncNamed(1, consumerThreads);
#pragma unroll
  for (int r = 0; r < 2; r++) sums.sum[r] = addRounded(largest[accumulatorRow(t, r != 0)], largest[heads + accumulatorRow(t, r != 0)]);
}

DEVICE void storePart(float* part, const MlaSums& sums) {
  const int t = static_cast<int>(thread()), group = t / 128;
#pragma unroll
  for (int i = 0; i < 128; i += 2) {
    const int row = accumulatorRow(t, i / 2 % 2 != 0);
    storePair(part + row * mlaLatentSize + group * 256 + accumulatorColumn(t, i / 4), bitsOf(sums.out[i]), bitsOf(sums.out[i + 1]));
  }
  if (group != 0 || t % 4 != 0) return;
  for (int r = 0; r < 2; r++) storePair(part + heads * mlaLatentSize + 2 * accumulatorRow(t, r != 0), bitsOf(sums.most[r]), bitsOf(sums.sum[r]));
}

DEVICE void combine(const MlaLaunch& launch, int sequence, const float* parts, int count) {
  constexpr int units = mlaLatentSize / 8;
  const int firstHead = static_cast<int>(blockIndex().y) * heads;
  for (int unit = static_cast<int>(thread()); unit < heads * units; unit += consumerThreads) {
    const int head = unit / units, column = unit % units * 8;
    if (firstHead + head >= launch.of.headCount) break;
    const float* stats = parts + heads * mlaLatentSize + 2 * head;
    float most = -INFINITY, total = 0, sum[8] = {};
    for (int s = 0; s < count; s++) most = fmaxf(most, stats[s * partStride]);
    for (int s = 0; s < count; s++) {
      const float weight = exp2Fast(addRounded(stats[s * partStride], -most));
      total = multiplyAdd(stats[s * partStride + 1], weight, total);
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const Bytes16 four = load16(parts + s * partStride + head * mlaLatentSize + column + 4 * half);
#pragma unroll
        for (int i = 0; i < 4; i++) sum[4 * half + i] = multiplyAdd(floatOfBits(four.words[i]), weight, sum[4 * half + i]);
      }
    }
    const float inverse = 1.0f / total;
    Bytes16 eight;
#pragma unroll
    for (int i = 0; i < 4; i++) eight.words[i] = packPair(multiplyRounded(sum[2 * i], inverse), multiplyRounded(sum[2 * i + 1], inverse));
    store16(launch.of.out + (static_cast<int64_t>(sequence) * launch.of.headCount + firstHead + head) * mlaLatentSize + column, eight);
  }
}

KERNEL_ALONE(threads) void mlaKernel(const GRID_CONSTANT MlaLaunch launch) {
  uint8_t* shared = sharedMemory();
  auto* queries = reinterpret_cast<Barrier*>(shared + barriersAt);
  Barrier *full = queries + 1, *empty = full + stages;
  auto* isLast = reinterpret_cast<uint32_t*>(empty + stages);
  const int t = static_cast<int>(thread()), sequence = static_cast<int>(blockIndex().x), split = static_cast<int>(blockIndex().z);
  if (t == 0) {
    barrierInit(queries, 1);
    for (int s = 0; s < stages; s++) {
      barrierInit(&full[s], 1);
      barrierInit(&empty[s], consumerThreads / 32);
    }
    fenceBarrierInit();
  }
  syncThreads();
  waitForLaunchBefore();
  letLaunchAfterStart();
  const int count = launch.of.tokenCounts[sequence], from = split * launch.of.splitTokens;
  if (from >= count) return;
  const int to = from + launch.of.splitTokens < count ? from + launch.of.splitTokens : count;
  const int firstTile = from / tile, tileEnd = (to + tile - 1) / tile;
  if (t >= consumerThreads) {
    lowerRegisters<40>();
    if (t < consumerThreads + 32) produce(launch, shared, queries, full, empty, sequence, firstTile, tileEnd, count);
    return;
  }
  raiseRegisters<232>();
  MlaSums sums;
  attendTiles(launch, shared, queries, full, empty, firstTile, tileEnd, count, sums);
  const int splits = (count + launch.of.splitTokens - 1) / launch.of.splitTokens;
  const int place = sequence * static_cast<int>(gridSize().y) + static_cast<int>(blockIndex().y);
  float* parts = launch.of.partials + static_cast<int64_t>(place) * launch.mostSplits * partStride;
  storePart(parts + static_cast<int64_t>(split) * partStride, sums);
  threadFence();
  syncNamed(1, consumerThreads);
  if (splits > 1) {
    if (t == 0) {
      *isLast = atomicAddTo(launch.of.arrivals + place, 1u) + 1 == static_cast<uint32_t>(splits) ? 1 : 0;
      if (*isLast != 0) launch.of.arrivals[place] = 0;
      threadFence();
    }
    syncNamed(1, consumerThreads);
    if (*isLast == 0) return;
  }
  combine(launch, sequence, parts, splits);
}

void refuseWhere(bool isWrong, const char* why) {
  if (isWrong) throw NativeFault(std::string("mlaDecodeByWgmma: ") + why);
}

int64_t splitCount(const MlaArguments& a) { return ceilDivide(a.mostTokens, a.splitTokens); }

}  // namespace

int64_t mlaPartialCount(const MlaArguments& a) { return a.sequenceCount * ceilDivide(a.headCount, heads) * splitCount(a) * partStride; }

void mlaDecodeByWgmma(const MlaArguments& a, Stream stream) {
  refuseWhere(a.sequenceCount < 1 || a.headCount < 1 || a.blockCount < 1 || a.mostTokens < 1, "nothing to attend to");
  refuseWhere(a.splitTokens < tile || a.splitTokens % tile != 0, "splitTokens must be a multiple of 64");
  refuseWhere(a.partials == nullptr || a.arrivals == nullptr, "splits need room for their sums");
  MlaLaunch arguments{};
  arguments.of = a;
  arguments.mostSplits = static_cast<int>(splitCount(a));
  constexpr int64_t rowBytes = int64_t{2} * mlaRowSize;
  arguments.queries = encodeTensorMap({a.queries, ElementType::bf16, mlaRowSize, a.headCount, rowBytes, 64, heads, a.sequenceCount, rowBytes * a.headCount});
  arguments.latents = encodeTensorMap({a.latents, ElementType::bf16, mlaRowSize, int64_t{a.blockCount} * kvBlockTokens, rowBytes, 64, kvBlockTokens});
  LaunchShape shape{{static_cast<uint32_t>(a.sequenceCount), static_cast<uint32_t>(ceilDivide(a.headCount, heads)), static_cast<uint32_t>(arguments.mostSplits)}, {threads}, sharedBytes};
  shape.overlapsBefore = true;
  launch("mlaWgmma", mlaKernel, shape, stream, arguments);
}

}  // namespace variator::cuda
