// The kernel behind gemm_wgmma.h. A block is three warpgroups: one thread of the first feeds a ring of `stages` tiles of A
// and B by TMA, the other two multiply by wgmma and store through shared memory by TMA. Blocks stay and walk over tiles.
//
//   producer   wait empty[s] -> expect bytes -> load A, B -> full[s] fills itself
//   consumers  wait full[s] -> 4 wgmma -> (when the one before is complete) arrive at empty[s - 1]
//
// Tiles are rows of 128 bytes along K with the 128-byte swizzle: 64 bf16 or 128 e4m3. Tiles of 128 rows are split between
// the consumers by rows, tiles of 64 rows by columns. In a cluster of two blocks each fetches half of the tile of weights
// for both, and gives a stage back to both.
#pragma once
#include "gemm_wgmma.h"
#include "hopper_pack.h"
#include "hopper_tma.h"
#include "hopper_wgmma.h"

namespace variator::cuda::hopper {

constexpr int gemmThreads = 384, gemmConsumers = 2;

struct GemmLaunch {
  TensorMap a, b, out;
  GemmArguments of;
};

template <GemmType type, int tileM, int tileN, int stages, int clusterM, typename Out>
struct GemmShape {
  static constexpr int aBytes = tileM * 128, bBytes = tileN * 128, stageBytes = aBytes + bBytes;
  static constexpr int tileK = type == GemmType::bf16 ? 64 : 128;
  static constexpr int columnsEach = tileM == 64 ? tileN / 2 : tileN;  // of a consumer
  static constexpr int chunkColumns = 128 / static_cast<int>(sizeof(Out)), chunkBytes = 64 * 128;
  static constexpr int chunksAt = stages * stageBytes, barriersAt = chunksAt + gemmConsumers * 2 * chunkBytes;
  static constexpr int sharedBytes = barriersAt + 2 * stages * static_cast<int>(sizeof(Barrier));
  static_assert(tileM == 64 || tileM == 128);
  static_assert(clusterM == 1 || (clusterM == 2 && tileN % 16 == 0));
  static_assert(columnsEach % 64 == 0 && columnsEach <= 256);
  static_assert(sharedBytes <= 227 << 10);
};

/** Groups of 8 tiles of rows go through all columns together, so that both operands are found in L2. */
struct TileOrder {
  int tilesM, tilesN;  // tilesM in clusters
  DEVICE int count() const { return tilesM * tilesN; }
  DEVICE void at(int index, int& m, int& n) const {
    constexpr int group = 8;
    const int first = index / (group * tilesN) * group, height = tilesM - first < group ? tilesM - first : group;
    const int within = index - first * tilesN;
    m = first + within % height;
    n = within / height;
  }
};

/** Whose weights a tile of rows takes; below 0: it is not computed. */
DEVICE int expertOf(const GemmGroups& groups, int tile, int firstRow) {
  if (groups.tileExperts != nullptr) return groups.tileExperts[tile];
  if (groups.rowCounts == nullptr) return 0;
  const int expert = firstRow / groups.mostRows;
  return firstRow - expert * groups.mostRows < groups.rowCounts[expert] ? expert : -1;
}

/** The tiles of a block: index, index + step, ... of the order, as those of its cluster. */
template <int clusterM>
DEVICE int firstTile() {
  return static_cast<int>(blockIndex().x) / clusterM;
}
template <int clusterM>
DEVICE int tileStep() {
  return static_cast<int>(gridSize().x) / clusterM;
}

template <GemmType type, int tileM, int tileN, int stages, int clusterM, typename Out>
DEVICE void gemmProduce(const GemmLaunch& launch, const TileOrder& order, uint8_t* shared, Barrier* full, Barrier* empty) {
  using Shape = GemmShape<type, tileM, tileN, stages, clusterM, Out>;
  RingCursor<stages> at;
  const int steps = (launch.of.depth + Shape::tileK - 1) / Shape::tileK;
  const int rank = clusterM > 1 ? static_cast<int>(clusterRank()) : 0;
  for (int tile = firstTile<clusterM>(); tile < order.count(); tile += tileStep<clusterM>()) {
    int m, n;
    order.at(tile, m, n);
    m = m * clusterM + rank;
    const int expert = expertOf(launch.of.groups, m, m * tileM);
    if (expert < 0) continue;
    const int weightRow = expert * launch.of.columns + n * tileN;
    for (int step = 0; step < steps; step++) {
      barrierWait(&empty[at.stage], at.parity ^ 1);
      barrierArriveExpect(&full[at.stage], Shape::stageBytes);
      uint8_t* a = shared + at.stage * Shape::stageBytes;
      loadBox(a, &launch.a, &full[at.stage], step * Shape::tileK, m * tileM);
      if constexpr (clusterM == 1) {
        loadBox(a + Shape::aBytes, &launch.b, &full[at.stage], step * Shape::tileK, weightRow);
      } else {
        constexpr int share = tileN / clusterM;
        loadBoxToAll(a + Shape::aBytes + rank * share * 128, &launch.b, &full[at.stage], step * Shape::tileK, weightRow + rank * share, 3);
      }
      at.advance();
    }
  }
}

/** This warp has read a stage: so that every block that writes it knows. */
template <int clusterM>
DEVICE void giveBack(Barrier* empty) {
  if constexpr (clusterM == 1) {
    if (lane() == 0) barrierArrive(empty);
  } else {
    if (lane() < clusterM) barrierArriveAt(empty, lane());
  }
}

/** acc = the consumer's part of one tile; the ring's stages are given back as they are read. */
template <GemmType type, int tileM, int tileN, int stages, int clusterM, typename Out,
          int n = GemmShape<type, tileM, tileN, stages, clusterM, Out>::columnsEach>
DEVICE void gemmMultiply(const GemmArguments& of, float (&acc)[n / 2], RingCursor<stages>& at, uint32_t shared, int consumer,
                         Barrier* full, Barrier* empty, int firstRow, int columnBlock) {
  using Shape = GemmShape<type, tileM, tileN, stages, clusterM, Out>;
  const uint32_t aOffset = tileM == 64 ? 0 : static_cast<uint32_t>(consumer) * 64 * 128;
  const uint32_t bOffset = Shape::aBytes + (tileM == 64 ? static_cast<uint32_t>(consumer) * n * 128 : 0);
  const int steps = (of.depth + Shape::tileK - 1) / Shape::tileK;
  if constexpr (type == GemmType::bf16) {
    int before = 0;
    for (int step = 0; step < steps; step++) {
      barrierWait(&full[at.stage], at.parity);
      const uint32_t start = shared + static_cast<uint32_t>(at.stage) * Shape::stageBytes;
      const uint64_t descA = describeKMajor(start + aOffset), descB = describeKMajor(start + bOffset);
      pinRegisters(acc);
      wgmmaFence();
#pragma unroll
      for (int k = 0; k < 4; k++) wgmmaBf16<n>(acc, descriptorPlus(descA, 32 * k), descriptorPlus(descB, 32 * k), step > 0 || k > 0);
      wgmmaCommit();
      pinRegisters(acc);
      wgmmaWait<1>();
      if (step > 0) giveBack<clusterM>(&empty[before]);
      before = at.stage;
      at.advance();
    }
    wgmmaWait<0>();
    pinRegisters(acc);
    giveBack<clusterM>(&empty[before]);
  } else {
    // The tensor core keeps fewer bits of an e4m3 sum than float32 has: its sums are taken over into float32 every 128 of K.
    float part[n / 2];
    const int rowHigh = firstRow + accumulatorRow(static_cast<int>(thread()), false), rowLow = rowHigh + 8;
#pragma unroll
    for (int i = 0; i < n / 2; i++) acc[i] = 0;
    for (int step = 0; step < steps; step++) {
      float scaleHigh = 1, scaleLow = 1;
      if constexpr (type == GemmType::e4m3Blocks) {
        const float weight = of.weightScales[columnBlock * steps + step];
        scaleHigh = rowHigh < of.rows ? weight * of.activationScales[rowHigh * steps + step] : 0;
        scaleLow = rowLow < of.rows ? weight * of.activationScales[rowLow * steps + step] : 0;
      }
      barrierWait(&full[at.stage], at.parity);
      const uint32_t start = shared + static_cast<uint32_t>(at.stage) * Shape::stageBytes;
      const uint64_t descA = describeKMajor(start + aOffset), descB = describeKMajor(start + bOffset);
      pinRegisters(part);
      wgmmaFence();
#pragma unroll
      for (int k = 0; k < 4; k++) wgmmaE4m3<n>(part, descriptorPlus(descA, 32 * k), descriptorPlus(descB, 32 * k), k > 0);
      wgmmaCommit();
      wgmmaWait<0>();
      pinRegisters(part);
      giveBack<clusterM>(&empty[at.stage]);
      at.advance();
#pragma unroll
      for (int i = 0; i < n / 2; i++) acc[i] = multiplyAdd(part[i], i / 2 % 2 == 0 ? scaleHigh : scaleLow, acc[i]);
    }
  }
}

/** One value of the output and the next to its right, with all that is fused. */
template <GemmType type>
DEVICE void finishPair(const GemmArguments& of, int expert, int row, int column, float& left, float& right) {
  if (row >= of.rows || column >= of.columns) return;
  if constexpr (type == GemmType::e4m3) {
    const float scale = of.activationScales[row];
    const float* weightScales = of.weightScales + static_cast<int64_t>(expert) * of.columns + column;
    left *= scale * weightScales[0];
    right *= scale * weightScales[1];
  }
  if (of.bias != nullptr) {
    left = addRounded(left, of.bias[column]);
    right = addRounded(right, of.bias[column + 1]);
  }
  if (of.residual != nullptr) {
    uint32_t pair;
    memcpy(&pair, of.residual + static_cast<int64_t>(row) * of.columns + column, 4);
    left = addRounded(left, lowOf(pair));
    right = addRounded(right, highOf(pair));
  }
  if (of.addend != nullptr) {
    const float* addend = of.addend + static_cast<int64_t>(row) * of.columns + column;
    left = addRounded(left, addend[0]);
    right = addRounded(right, addend[1]);
  }
}

/** Accumulators to shared memory and from there by TMA, 128 bytes of each row at a time, two buffers in turn. */
template <GemmType type, typename Out, int n>
DEVICE void gemmStore(const GemmLaunch& launch, const float (&acc)[n / 2], uint8_t* chunks, int consumer, int firstRow, int firstColumn,
                      int expert, int& storeCount) {
  constexpr int chunkColumns = 128 / static_cast<int>(sizeof(Out)), chunkBytes = 64 * 128;
  const int t = static_cast<int>(thread());
  const bool isIssuer = t % 128 == 0;
  const auto barrier = static_cast<uint32_t>(1 + consumer);
#pragma unroll
  for (int chunk = 0; chunk < n / chunkColumns; chunk++) {
    uint8_t* buffer = chunks + storeCount++ % 2 * chunkBytes;
    if (isIssuer) waitForStoreReads<1>();
    syncNamed(barrier, 128);
#pragma unroll
    for (int group = 0; group < chunkColumns / 8; group++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int row = accumulatorRow(t, half != 0), column = accumulatorColumn(t, group);
        const int i = (chunk * chunkColumns / 8 + group) * 4 + half * 2;
        float left = acc[i], right = acc[i + 1];
        finishPair<type>(launch.of, expert, firstRow + row, firstColumn + chunk * chunkColumns + column, left, right);
        uint8_t* to = buffer + swizzledOffset(static_cast<uint32_t>(row), static_cast<uint32_t>(column) * sizeof(Out));
        if constexpr (sizeof(Out) == 4) {
          storePair(to, bitsOf(left), bitsOf(right));
        } else {
          storeWord(to, packPair(left, right));
        }
      }
    }
    fenceAsyncProxy(buffer, chunkBytes);
    syncNamed(barrier, 128);
    if (isIssuer) {
      storeBox(&launch.out, buffer, firstColumn + chunk * chunkColumns, firstRow);
      commitStores();
    }
  }
}

template <GemmType type, int tileM, int tileN, int stages, int clusterM, typename Out>
DEVICE void gemmConsume(const GemmLaunch& launch, const TileOrder& order, uint8_t* shared, int consumer, Barrier* full, Barrier* empty) {
  using Shape = GemmShape<type, tileM, tileN, stages, clusterM, Out>;
  const int rank = clusterM > 1 ? static_cast<int>(clusterRank()) : 0;
  RingCursor<stages> at;
  int storeCount = 0;
  for (int tile = firstTile<clusterM>(); tile < order.count(); tile += tileStep<clusterM>()) {
    int m, n;
    order.at(tile, m, n);
    m = m * clusterM + rank;
    const int expert = expertOf(launch.of.groups, m, m * tileM);
    if (expert < 0) continue;
    const int firstRow = m * tileM + (tileM == 64 ? 0 : consumer * 64);
    const int firstColumn = n * tileN + (tileM == 64 ? consumer * Shape::columnsEach : 0);
    // A consumer that has no column of the matrix works on zeros, by the last block's scales.
    const int scaledColumn = firstColumn < launch.of.columns ? firstColumn : launch.of.columns - 1;
    float acc[Shape::columnsEach / 2];
    gemmMultiply<type, tileM, tileN, stages, clusterM, Out>(launch.of, acc, at, sharedAddress(shared), consumer, full, empty, firstRow,
                                                            expert * ((launch.of.columns + 127) / 128) + scaledColumn / 128);
    gemmStore<type, Out, Shape::columnsEach>(launch, acc, shared + Shape::chunksAt + consumer * 2 * Shape::chunkBytes, consumer,
                                             firstRow, firstColumn, expert, storeCount);
  }
  if (thread() % 128 == 0) waitForStores();
}

template <GemmType type, int tileM, int tileN, int stages, int clusterM, typename Out>
KERNEL_ALONE(gemmThreads) void gemmKernel(const GRID_CONSTANT GemmLaunch launch) {
  using Shape = GemmShape<type, tileM, tileN, stages, clusterM, Out>;
  uint8_t* shared = sharedMemory();
  auto* full = reinterpret_cast<Barrier*>(shared + Shape::barriersAt);
  Barrier* empty = full + stages;
  if (thread() == 0) {
    prefetchTensorMap(&launch.a);
    prefetchTensorMap(&launch.b);
    for (int s = 0; s < stages; s++) {
      barrierInit(&full[s], 1);
      barrierInit(&empty[s], gemmConsumers * 4 * clusterM);
    }
    fenceBarrierInit();
  }
  if constexpr (clusterM == 1) {
    syncThreads();
  } else {
    syncCluster();
  }
  const TileOrder order{(launch.of.rows + tileM * clusterM - 1) / (tileM * clusterM), (launch.of.columns + tileN - 1) / tileN};
  waitForLaunchBefore();
  letLaunchAfterStart();
  const int warpgroup = static_cast<int>(thread() / 128);
  if (warpgroup == 0) {
    lowerRegisters<40>();
    if (thread() == 0) gemmProduce<type, tileM, tileN, stages, clusterM, Out>(launch, order, shared, full, empty);
  } else {
    raiseRegisters<232>();
    gemmConsume<type, tileM, tileN, stages, clusterM, Out>(launch, order, shared, warpgroup - 1, full, empty);
  }
  // No block may end while another still copies into it or arrives at its barriers.
  if constexpr (clusterM > 1) syncCluster();
}

}  // namespace variator::cuda::hopper
