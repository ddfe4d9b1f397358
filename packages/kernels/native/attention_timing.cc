// See attention_timing.h.
#include "attention_timing.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <random>

#include "linear_timing.h"

namespace variator {
namespace {

using Clock = std::chrono::steady_clock;
using Ms = std::chrono::duration<double, std::milli>;

constexpr int64_t blockSize = 16;
// Twice what a last-level cache of this class keeps for one process.
constexpr int64_t leastCacheBytes = 64 << 20;

int64_t blocksOf(const AttentionShapeOfStep& shape) {
  return (shape.contextLength + shape.rowCount + blockSize - 1) / blockSize;
}

// Every block holds the same drawn keys and values, each at its own place in memory.
void fill(const KvCache& cache, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> key(static_cast<size_t>(cache.headSize)), value(static_cast<size_t>(cache.valueSize));
  uint8_t* first = cache.blocks(0, 0);
  for (int64_t head = 0; head < cache.kvHeadCount; head++) {
    for (int64_t slot = 0; slot < blockSize; slot++) {
      std::generate(key.begin(), key.end(), [&] { return normal(random); });
      std::generate(value.begin(), value.end(), [&] { return normal(random); });
      kvOps(cache.format()).write(cache.layout(), cache.blocks(0, head), slot, key.data(), value.data());
    }
  }
  for (int64_t layer = 0; layer < cache.layerCount; layer++) {
    for (int64_t block = 0; block < cache.blockCount(); block++) {
      uint8_t* to = cache.blocks(layer, 0) + block * cache.blockBytes();
      if (to != first) std::memcpy(to, first, static_cast<size_t>(cache.blockBytes()));
    }
  }
}

Step stepOf(const AttentionShapeOfStep& shape, AttentionVariant attention, int64_t splitTokens, int threadCount) {
  Step step{};
  const int64_t count = shape.sequenceCount, rows = shape.rowCount, blocks = blocksOf(shape);
  step.attention = attention;
  step.splitTokens = splitTokens;
  step.threadCount = threadCount;
  step.tokenIds.assign(static_cast<size_t>(count * rows), 0);
  for (int64_t s = 0; s <= count; s++) step.tokenStarts.push_back(static_cast<int32_t>(s * rows));
  step.contextLengths.assign(static_cast<size_t>(count), shape.contextLength);
  step.blockTableStride = blocks;
  for (int64_t i = 0; i < count * blocks; i++) step.blockTables.push_back(static_cast<int32_t>(i));
  step.isSampled.assign(static_cast<size_t>(count), 0);
  step.draftCounts.assign(static_cast<size_t>(count), 0);
  return step;
}

}  // namespace

AttentionTimes timeAttention(const Model& model, AttentionVariant attention, int64_t splitTokens, StepRunner& runner,
                             ThreadTeam& team, int threadCount, const std::vector<AttentionShapeOfStep>& shapes,
                             const std::vector<AttentionTuning>& tunings, int32_t sampleCount, double limitMs) {
  const auto end = Clock::now() + Ms(limitMs);
  std::mt19937 random(1);
  int64_t blockCount = 1;
  for (const auto& shape : shapes) blockCount = std::max(blockCount, shape.sequenceCount * blocksOf(shape));
  ModelShape cached = model.shape;
  const KvLayout layout = kvLayoutOf(kvFormatOf(attention), cached.cachedKeySize(), cached.cachedValueSize(), blockSize);
  const int64_t layerBytes = blockCount * cached.cachedHeadCount() * layout.headBlockBytes;
  cached.layerCount = std::clamp<int64_t>((leastCacheBytes + layerBytes - 1) / layerBytes, 1, cached.layerCount);
  const KvCache cache(cached, blockCount, blockSize, kvFormatOf(attention));
  fill(cache, random);

  AttentionTimes times;
  // What was touched last is as near as it ever is: the layers go around over all shapes.
  int64_t layer = 0;
  for (size_t index = 0; index < shapes.size(); index++) {
    const Ms left = end - Clock::now();
    const auto shapeEnd = Clock::now() + (index + 1 == shapes.size() ? left : left / 2);
    Step step = stepOf(shapes[index], attention, splitTokens, threadCount);
    const AttentionRows rows = runner.beginAttention(step, cache);
    std::normal_distribution<float> normal;
    std::generate_n(rows.queries, rows.queryCount, [&] { return normal(random); });

    std::vector<std::vector<float>> samples(tunings.size());
    std::vector<size_t> turns;
    for (int32_t round = 0; round < sampleCount; round++) {
      for (size_t i = 0; i < tunings.size(); i++) turns.push_back(i);
      std::shuffle(turns.end() - static_cast<std::ptrdiff_t>(tunings.size()), turns.end(), random);
    }
    std::atomic<bool> isOver{Clock::now() >= shapeEnd};
    team.run(threadCount, [&](int thread) {
      for (size_t turn = 0; turn < turns.size() && !isOver.load(); turn++) {
        if (thread == 0) {
          step.attentionDispatch.tunings.assign(attentionRowBucketCount * contextBucketCount, tunings[turns[turn]]);
          runner.listAttention();
          layer = (layer + 1) % cached.layerCount;
        }
        team.barrier();
        const auto start = Clock::now();
        runner.attendLayer(thread, layer);
        team.barrier();
        if (thread == 0) {
          const auto now = Clock::now();
          samples[turns[turn]].push_back(std::chrono::duration<float, std::micro>(now - start).count());
          if (now >= shapeEnd) isOver.store(true);
        }
        team.barrier();
      }
    });
    for (auto& own : samples) {
      times.sampleCounts.push_back(static_cast<int32_t>(own.size()));
      times.usPerLayer.push_back(medianOf(own));
    }
  }
  return times;
}

}  // namespace variator
