// See attention_trial.h. Called by addon.cc on the event loop. What nobody writes stays NaN and shows in the result.
#include "attention_trial.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "native_fault.h"

namespace variator {
namespace {

void require(bool isMet, const char* fault) {
  if (!isMet) throw NativeFault(fault);
}

ModelShape shapeOf(const AttentionTrial& trial) {
  ModelShape shape{};
  shape.layerCount = 1;
  shape.hiddenSize = shape.intermediateSize = shape.vocabularySize = 1;
  shape.headCount = trial.headCount;
  shape.kvHeadCount = trial.kvHeadCount;
  shape.headSize = trial.headSize;
  shape.windowTokens = {static_cast<int32_t>(trial.windowTokens)};
  return shape;
}

}  // namespace

std::vector<float> attendAlone(const AttentionTrial& trial) {
  const int64_t count = static_cast<int64_t>(trial.contextLengths.size()), blockSize = trial.blockSize;
  require((trial.splitTokens & (trial.splitTokens - 1)) == 0, "splitTokens: must be a power of two");
  require(trial.headCount % trial.kvHeadCount == 0, "headCount: must be a multiple of kvHeadCount");
  require(count > 0 && static_cast<int64_t>(trial.tokenStarts.size()) == count + 1 && trial.tokenStarts[0] == 0,
          "tokenStarts: must be one more than contextLengths, from 0");
  Step step{};
  int64_t tokenCount = 0, blockCount = 0;
  for (int64_t s = 0; s < count; s++) {
    require(trial.contextLengths[s] >= 0 && trial.tokenStarts[s] < trial.tokenStarts[s + 1],
            "tokenStarts: every sequence needs a row");
    const int64_t length = trial.contextLengths[s] + trial.tokenStarts[s + 1] - trial.tokenStarts[s];
    tokenCount += length;
    step.blockTableStride = std::max(step.blockTableStride, (length + blockSize - 1) / blockSize);
  }
  const int64_t rowCount = trial.tokenStarts[count], rowSize = trial.headCount * trial.headSize;
  const int64_t tokenSize = trial.kvHeadCount * trial.headSize;
  require(static_cast<int64_t>(trial.queries.size()) == rowCount * rowSize, "queries: must be [T, headCount, headSize]");
  require(static_cast<int64_t>(trial.keys.size()) == tokenCount * tokenSize && trial.values.size() == trial.keys.size(),
          "keys, values: must be [tokens, kvHeadCount, headSize]");
  step.attention = trial.attention;
  step.splitTokens = trial.splitTokens;
  step.attentionDispatch.tunings.assign(attentionRowBucketCount * contextBucketCount, trial.tunings.at(0));
  step.threadCount = trial.threadCount;
  step.tokenIds.assign(static_cast<size_t>(rowCount), 0);
  step.tokenStarts = trial.tokenStarts;
  step.contextLengths = trial.contextLengths;
  step.isSampled.assign(static_cast<size_t>(count), 0);
  step.draftCounts.assign(static_cast<size_t>(count), 0);
  step.blockTables.assign(static_cast<size_t>(count * step.blockTableStride), 0);
  blockCount = count * step.blockTableStride;
  for (int64_t i = 0; i < blockCount; i++) step.blockTables[static_cast<size_t>(i)] = static_cast<int32_t>(blockCount - 1 - i);

  Model model;
  model.shape = shapeOf(trial);
  const KvCache kvCache(model.shape, blockCount, blockSize, kvFormatOf(trial.attention));
  std::memset(kvCache.blocks(0, 0), 0xff, static_cast<size_t>(blockCount * kvCache.blockBytes()));
  int64_t token = 0;
  for (int64_t s = 0; s < count; s++) {
    const int64_t length = trial.contextLengths[s] + trial.tokenStarts[s + 1] - trial.tokenStarts[s];
    for (int64_t position = 0; position < length; position++, token++) {
      const int64_t block = step.blockTables[static_cast<size_t>(s * step.blockTableStride + position / blockSize)];
      for (int64_t head = 0; head < trial.kvHeadCount; head++) {
        const int64_t at = token * tokenSize + head * trial.headSize;
        kvOps(kvCache.format()).write(kvCache.layout(), kvCache.blocks(0, head) + block * kvCache.blockBytes(),
                                      position % blockSize, trial.keys.data() + at, trial.values.data() + at);
      }
    }
  }

  ThreadTeam team(trial.threadCount);
  StepRunner runner(model, team);
  const AttentionRows rows = runner.beginAttention(step, kvCache);
  for (int64_t row = 0; row < rowCount; row++) {
    std::copy_n(trial.queries.begin() + row * rowSize, rowSize, rows.queries + row * rows.queryStride);
    std::fill_n(rows.outs + row * rows.outStride, rowSize, std::nanf(""));
  }
  runner.listAttention();
  team.run(trial.threadCount, [&](int thread) { runner.attendLayer(thread, 0); });
  std::vector<float> outs(static_cast<size_t>(rowCount * rowSize));
  for (int64_t row = 0; row < rowCount; row++) std::copy_n(rows.outs + row * rows.outStride, rowSize, outs.begin() + row * rowSize);
  return outs;
}

}  // namespace variator
