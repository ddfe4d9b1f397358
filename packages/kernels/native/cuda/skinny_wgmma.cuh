// The kernel behind skinny_wgmma.h: block (tile of weights, part of the depth). Its last warp feeds the ring by TMA, and
// starts on the weights before the launch before it has ended; the other warpgroups multiply 64 rows of weights each. With
// more than one part of the depth the sums go to global memory, and whichever block of a tile comes last adds them up.
#pragma once
#include "hopper_pack.h"
#include "hopper_tma.h"
#include "hopper_wgmma.h"
#include "skinny_wgmma.h"

namespace variator::cuda::hopper {

struct SkinnyLaunch {
  TensorMap weights, activations;
  SkinnyArguments of;
  int splits;
};

template <bool isE4m3, int tileM, int n, int tileK, int stages>
struct SkinnyShape {
  static constexpr int consumers = tileM / 64, consumerThreads = 128 * consumers, threads = consumerThreads + 32;
  static constexpr int weightBytes = tileM * 128, rowBytes = n * 128, partBytes = weightBytes + rowBytes;
  static constexpr int stageBytes = tileK * partBytes;
  static constexpr int depthOfStage = tileK * (isE4m3 ? 128 : 64);
  // Sums on their way out: [n][sumStride]; the padding keeps a warp's stores to different banks.
  static constexpr int sumStride = tileM + 4, sumsAt = stages * stageBytes;
  static constexpr int barriersAt = sumsAt + n * sumStride * 4;
  static constexpr int sharedBytes = barriersAt + 2 * stages * static_cast<int>(sizeof(Barrier)) + 16;
  static_assert(tileM == 64 || tileM == 128);
  static_assert(sharedBytes <= 227 << 10);
};

template <typename Shape, int tileM, int tileK, int stages>
DEVICE void skinnyProduce(const SkinnyLaunch& launch, uint8_t* shared, Barrier* full, Barrier* empty, int firstStep, int lastStep) {
  constexpr int unit = Shape::depthOfStage / tileK;
  const int row = static_cast<int>(blockIndex().x) * tileM;
  const auto loadWeights = [&](int stage, int step) {
    barrierArriveExpect(&full[stage], Shape::stageBytes);
    for (int k = 0; k < tileK; k++) {
      loadBox(shared + stage * Shape::stageBytes + k * Shape::partBytes, &launch.weights, &full[stage], step * Shape::depthOfStage + k * unit, row);
    }
  };
  const auto loadActivations = [&](int stage, int step) {
    for (int k = 0; k < tileK; k++) {
      loadBox(shared + stage * Shape::stageBytes + k * Shape::partBytes + Shape::weightBytes, &launch.activations, &full[stage],
              step * Shape::depthOfStage + k * unit, 0);
    }
  };
  // Weights do not change: they need not wait for whoever computes the activations.
  const int ahead = lastStep - firstStep < stages ? lastStep - firstStep : stages;
  for (int i = 0; i < ahead; i++) loadWeights(i, firstStep + i);
  waitForLaunchBefore();
  for (int i = 0; i < ahead; i++) loadActivations(i, firstStep + i);
  RingCursor<stages> at;
  for (int step = firstStep + ahead; step < lastStep; step++) {
    barrierWait(&empty[at.stage], at.parity);
    loadWeights(at.stage, step);
    loadActivations(at.stage, step);
    at.advance();
  }
}

/** sums[n][sumStride] = this block's part, in shared memory. */
template <typename Shape, bool isE4m3, int n, int tileK, int stages>
DEVICE void skinnyMultiply(uint8_t* shared, float* sums, Barrier* full, Barrier* empty, int stepCount) {
  const int t = static_cast<int>(thread()), consumer = t / 128;
  const uint32_t start = sharedAddress(shared);
  const bool signals = lane() == 0;
  RingCursor<stages> at;
  float acc[n / 2];
#pragma unroll
  for (int i = 0; i < n / 2; i++) acc[i] = 0;
  int before = 0;
  for (int step = 0; step < stepCount; step++) {
    barrierWait(&full[at.stage], at.parity);
    const uint32_t stage = start + static_cast<uint32_t>(at.stage) * Shape::stageBytes;
    if constexpr (isE4m3) {
#pragma unroll
      for (int part = 0; part < tileK; part++) {
        const uint32_t from = stage + part * Shape::partBytes;
        const uint64_t descA = describeKMajor(from + static_cast<uint32_t>(consumer) * 8192), descB = describeKMajor(from + Shape::weightBytes);
        float of128[n / 2];
        pinRegisters(of128);
        wgmmaFence();
#pragma unroll
        for (int k = 0; k < 4; k++) wgmmaE4m3<n>(of128, descriptorPlus(descA, 32 * k), descriptorPlus(descB, 32 * k), k > 0);
        wgmmaCommit();
        wgmmaWait<0>();
        pinRegisters(of128);
#pragma unroll
        for (int i = 0; i < n / 2; i++) acc[i] = addRounded(acc[i], of128[i]);
      }
      if (signals) barrierArrive(&empty[at.stage]);
    } else {
      pinRegisters(acc);
      wgmmaFence();
#pragma unroll
      for (int part = 0; part < tileK; part++) {
        const uint32_t from = stage + part * Shape::partBytes;
        const uint64_t descA = describeKMajor(from + static_cast<uint32_t>(consumer) * 8192), descB = describeKMajor(from + Shape::weightBytes);
#pragma unroll
        for (int k = 0; k < 4; k++) wgmmaBf16<n>(acc, descriptorPlus(descA, 32 * k), descriptorPlus(descB, 32 * k), true);
      }
      wgmmaCommit();
      pinRegisters(acc);
      wgmmaWait<1>();
      if (step > 0 && signals) barrierArrive(&empty[before]);
      before = at.stage;
    }
    at.advance();
  }
  if constexpr (!isE4m3) wgmmaWait<0>();
  pinRegisters(acc);
#pragma unroll
  for (int i = 0; i < n / 2; i++) {
    const int column = accumulatorColumn(t, i / 4) + i % 2, row = accumulatorRow(t, i / 2 % 2 != 0);
    sums[column * Shape::sumStride + consumer * 64 + row] = acc[i];
  }
}

DEVICE void loadEight(const float* from, float (&to)[8]) {
  const Bytes16 low = load16(from), high = load16(from + 4);
#pragma unroll
  for (int i = 0; i < 4; i++) {
    to[i] = floatOfBits(low.words[i]);
    to[4 + i] = floatOfBits(high.words[i]);
  }
}

/** Eight neighbouring columns of one row, with all that is fused. */
DEVICE void finishEight(const SkinnyArguments& of, int row, int column, float (&sum)[8]) {
  if (of.weightScales != nullptr) {
    const float scale = of.activationScales[row];
#pragma unroll
    for (int i = 0; i < 8; i++) sum[i] *= scale * of.weightScales[column + i];
  }
  if (of.bias != nullptr) {
#pragma unroll
    for (int i = 0; i < 8; i++) sum[i] = addRounded(sum[i], of.bias[column + i]);
  }
  const int64_t place = static_cast<int64_t>(row) * of.columns + column;
  if (of.residual != nullptr) {
    const Bytes16 residual = load16(of.residual + place);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      sum[2 * i] = addRounded(sum[2 * i], lowOf(residual.words[i]));
      sum[2 * i + 1] = addRounded(sum[2 * i + 1], highOf(residual.words[i]));
    }
  }
  if (of.floatOut != nullptr) {
    if (of.addend != nullptr) {
      float addend[8];
      loadEight(of.addend + place, addend);
#pragma unroll
      for (int i = 0; i < 8; i++) sum[i] = addRounded(sum[i], addend[i]);
    }
#pragma unroll
    for (int i = 0; i < 8; i += 4) {
      store16(of.floatOut + place + i, {{bitsOf(sum[i]), bitsOf(sum[i + 1]), bitsOf(sum[i + 2]), bitsOf(sum[i + 3])}});
    }
    return;
  }
  store16(of.out + place, {{packPair(sum[0], sum[1]), packPair(sum[2], sum[3]), packPair(sum[4], sum[5]), packPair(sum[6], sum[7])}});
}

template <bool isE4m3, int tileM, int n, int tileK, int stages>
KERNEL(128 * (tileM / 64) + 32) void skinnyKernel(const GRID_CONSTANT SkinnyLaunch launch) {
  using Shape = SkinnyShape<isE4m3, tileM, n, tileK, stages>;
  uint8_t* shared = sharedMemory();
  auto* sums = reinterpret_cast<float*>(shared + Shape::sumsAt);
  auto* full = reinterpret_cast<Barrier*>(shared + Shape::barriersAt);
  Barrier* empty = full + stages;
  auto* isLast = reinterpret_cast<uint32_t*>(empty + stages);
  const int t = static_cast<int>(thread());
  if (t == 0) {
    for (int s = 0; s < stages; s++) {
      barrierInit(&full[s], 1);
      barrierInit(&empty[s], Shape::consumers * 4);
    }
    fenceBarrierInit();
  }
  syncThreads();
  letLaunchAfterStart();
  const SkinnyArguments& of = launch.of;
  const int steps = (of.depth + Shape::depthOfStage - 1) / Shape::depthOfStage;
  const int stepsEach = (steps + launch.splits - 1) / launch.splits, split = static_cast<int>(blockIndex().y);
  const int firstStep = split * stepsEach < steps ? split * stepsEach : steps;
  const int lastStep = firstStep + stepsEach < steps ? firstStep + stepsEach : steps;
  if (t >= Shape::consumerThreads) {
    if (t == Shape::consumerThreads) skinnyProduce<Shape, tileM, tileK, stages>(launch, shared, full, empty, firstStep, lastStep);
    return;
  }
  skinnyMultiply<Shape, isE4m3, n, tileK, stages>(shared, sums, full, empty, lastStep - firstStep);
  syncNamed(1, Shape::consumerThreads);
  waitForLaunchBefore();
  const int firstColumn = static_cast<int>(blockIndex().x) * tileM;
  constexpr int perRow = tileM / 8;
  const int64_t tileFloats = int64_t{n} * tileM;
  float* partials = of.partials + static_cast<int64_t>(blockIndex().x) * launch.splits * tileFloats;
  if (launch.splits > 1) {
    for (int unit = t; unit < of.rows * perRow; unit += Shape::consumerThreads) {
      const int row = unit / perRow, at = unit % perRow * 8;
      float* to = partials + split * tileFloats + row * tileM + at;
      store16(to, load16(sums + row * Shape::sumStride + at));
      store16(to + 4, load16(sums + row * Shape::sumStride + at + 4));
    }
    threadFence();
    syncNamed(1, Shape::consumerThreads);
    if (t == 0) {
      const uint32_t before = atomicAddTo(of.arrivals + blockIndex().x, 1u);
      *isLast = before + 1 == static_cast<uint32_t>(launch.splits) ? 1 : 0;
      if (*isLast != 0) of.arrivals[blockIndex().x] = 0;
      threadFence();
    }
    syncNamed(1, Shape::consumerThreads);
    if (*isLast == 0) return;
  }
  for (int unit = t; unit < of.rows * perRow; unit += Shape::consumerThreads) {
    const int row = unit / perRow, at = unit % perRow * 8;
    if (firstColumn + at >= of.columns) continue;
    float sum[8];
    if (launch.splits == 1) {
      loadEight(sums + row * Shape::sumStride + at, sum);
    } else {
      loadEight(partials + row * tileM + at, sum);
      for (int s = 1; s < launch.splits; s++) {
        float part[8];
        loadEight(partials + s * tileFloats + row * tileM + at, part);
#pragma unroll
        for (int i = 0; i < 8; i++) sum[i] = addRounded(sum[i], part[i]);
      }
    }
    finishEight(of, row, firstColumn + at, sum);
  }
}

}  // namespace variator::cuda::hopper
