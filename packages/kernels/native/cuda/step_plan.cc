// See step_plan.h.
#include "step_plan.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "../native_fault.h"
#include "elementwise.h"

namespace variator::cuda {
namespace {

void require(bool isMet, const std::string& fault) {
  if (!isMet) throw NativeFault(fault);
}

int32_t draftCountOf(const VariatorCudaStep& step, int32_t s) { return step.draftCounts == nullptr ? 0 : step.draftCounts[s]; }
int32_t topCountOf(const VariatorCudaStep& step, int32_t s) { return step.topCounts == nullptr ? -1 : step.topCounts[s]; }

void requireToken(int32_t token, int32_t least, int32_t vocabularySize, const char* name) {
  require(token >= least && token < vocabularySize, std::string(name) + ": " + std::to_string(token) + " is not one of " + std::to_string(vocabularySize));
}

void requireStarts(const int32_t* starts, int32_t count, const char* name) {
  require(starts[0] == 0 && std::is_sorted(starts, starts + count + 1), std::string(name) + ": must rise from 0");
}

void checkRules(const VariatorCudaStep& step, int32_t vocabularySize) {
  requireStarts(step.countStarts, step.sequenceCount, "countStarts");
  requireStarts(step.biasStarts, step.sequenceCount, "biasStarts");
  for (int32_t s = 0; s < step.sequenceCount; s++) {
    const std::string who = "[" + std::to_string(s) + "]: ";
    require(step.repetitionPenalties[s] >= 0.01f && step.repetitionPenalties[s] <= 100, "repetitionPenalties" + who + "must be from 0.01 to 100");
    require(std::abs(step.frequencyPenalties[s]) <= 2, "frequencyPenalties" + who + "must be from -2 to 2");
    require(std::abs(step.presencePenalties[s]) <= 2, "presencePenalties" + who + "must be from -2 to 2");
    for (int32_t i = step.countStarts[s]; i < step.countStarts[s + 1]; i++) {
      requireToken(step.countedTokenIds[i], 0, vocabularySize, "countedTokenIds");
      require(step.tokenCounts[i] >= 0, "tokenCounts: must not be negative");
    }
    int32_t banCount = 0;
    for (int32_t i = step.biasStarts[s]; i < step.biasStarts[s + 1]; i++) {
      requireToken(step.biasTokenIds[i], 0, vocabularySize, "biasTokenIds");
      const float bias = step.biases[i];
      if (std::isinf(bias) && bias < 0) banCount++;
      else require(std::abs(bias) <= 100, "biases" + who + "must be from -100 to 100, or -infinity");
    }
    require(banCount < vocabularySize, "biases" + who + "leave no token to draw");
  }
}

}  // namespace

int32_t bucketOf(int32_t sequenceCount, int32_t mostSequences) {
  for (const int32_t bucket : decodeBuckets) {
    if (bucket >= sequenceCount && bucket <= mostSequences) return bucket;
  }
  return 0;
}

StepLayout layoutOf(const DeviceModel& model, const VariatorCudaLimits& limits) {
  StepLayout layout{};
  const int32_t pairTiles = static_cast<int32_t>(ceilDivide(model.group(), 16));
  layout.mostDecodeItems = limits.mostSequences * pairTiles;
  layout.mostChunkItems = limits.mostSequences + static_cast<int32_t>(ceilDivide(int64_t{limits.mostTokens} * model.group(), 16));
  int64_t at = 0;
  // Every part begins at 16 bytes.
  const auto part = [&](int64_t words) {
    const int64_t here = at;
    at += ceilDivide(words, 4) * 4;
    return here;
  };
  for (int64_t* one : {&layout.tokenIds, &layout.positions, &layout.slots}) *one = part(limits.mostTokens);
  layout.tokenStarts = part(limits.mostSequences + 1);
  for (int64_t* one : {&layout.contextLengths, &layout.partialStarts}) *one = part(limits.mostSequences);
  for (int64_t* one : {&layout.decodeSequences, &layout.decodePairs}) *one = part(layout.mostDecodeItems);
  for (int64_t* one : {&layout.chunkSequences, &layout.chunkPairs}) *one = part(layout.mostChunkItems);
  for (int64_t* one : {&layout.headRows, &layout.temperatures, &layout.topPs, &layout.minPs, &layout.topKs, &layout.drawPositions}) *one = part(limits.mostHeadRows);
  layout.seeds = part(2 * limits.mostHeadRows);
  layout.blockTables = part(int64_t{limits.mostSequences} * limits.mostBlocksPerSequence);
  layout.words = at;
  return layout;
}

bool isDecodeOnly(const VariatorCudaStep& step) {
  if (step.tokenCount != step.sequenceCount) return false;
  for (int32_t s = 0; s < step.sequenceCount; s++) {
    if (topCountOf(step, s) >= 0 && step.scoredTokenIds[s] >= 0) return false;
  }
  return true;
}

std::vector<HeadRow> headRowsOf(const VariatorCudaStep& step, int64_t& sampledCount, int64_t& logprobCount) {
  std::vector<HeadRow> rows;
  sampledCount = logprobCount = 0;
  for (int32_t s = 0; s < step.sequenceCount; s++) {
    const int32_t end = step.tokenStarts[s + 1], drafts = draftCountOf(step, s), top = topCountOf(step, s);
    if (top >= 0) {
      for (int32_t row = step.tokenStarts[s]; row < end; row++) {
        if (step.scoredTokenIds[row] < 0) continue;
        rows.push_back({row, s, step.scoredTokenIds[row], -1, logprobCount, false});
        logprobCount += 1 + top;
      }
    }
    const bool isDrawn = step.isSampled[s] != 0;
    if (isDrawn || step.isLogitsWanted != 0) {
      for (int32_t row = end - 1 - drafts; row < end; row++) {
        const bool isScored = isDrawn && top >= 0;
        rows.push_back({row, s, -1, isDrawn ? sampledCount + row - (end - 1 - drafts) : -1, isScored ? logprobCount : -1, row == end - 1});
        if (isScored) logprobCount += 1 + top;
      }
    }
    sampledCount += 1 + drafts;
  }
  return rows;
}

void checkStep(const VariatorCudaStep& step, const DeviceModel& model, const VariatorCudaLimits& limits, int32_t blockCount) {
  const auto within = [&](int32_t value, int32_t most, const char* name) {
    require(value >= 1 && value <= most, std::string(name) + ": " + std::to_string(value) + " is not from 1 to " + std::to_string(most));
  };
  within(step.sequenceCount, limits.mostSequences, "sequenceCount");
  within(step.tokenCount, limits.mostTokens, "tokenCount");
  within(step.blockTableStride, limits.mostBlocksPerSequence, "blockTableStride");
  require(step.tokenStarts[0] == 0 && step.tokenStarts[step.sequenceCount] == step.tokenCount, "tokenStarts: must go from 0 to tokenCount");
  for (int32_t s = 0; s < step.sequenceCount; s++) {
    const std::string who = "[" + std::to_string(s) + "]: ";
    require(step.tokenStarts[s] < step.tokenStarts[s + 1], "tokenStarts" + who + "every sequence needs a token");
    const int32_t chunk = step.tokenStarts[s + 1] - step.tokenStarts[s], drafts = draftCountOf(step, s);
    require(drafts >= 0 && drafts < chunk, "draftCounts" + who + "must leave a token before the drafts");
    require(step.contextLengths[s] >= 0, "contextLengths" + who + "must not be negative");
    const int64_t length = int64_t{step.contextLengths[s]} + chunk;
    require(length <= model.maxPositionCount, "contextLengths" + who + "ends at position " + std::to_string(length) + ", beyond the model's " + std::to_string(model.maxPositionCount));
    const int64_t blocks = ceilDivide(length, kvBlockTokens);
    require(blocks <= step.blockTableStride, "blockTables" + who + "is too short for " + std::to_string(length) + " tokens");
    for (int64_t b = 0; b < blocks; b++) {
      const int32_t block = step.blockTables[int64_t{s} * step.blockTableStride + b];
      require(block >= 0 && block < blockCount, "blockTables" + who + "block " + std::to_string(block) + " is not one of " + std::to_string(blockCount));
    }
    require(std::isfinite(step.temperatures[s]) && step.temperatures[s] >= 0, "temperatures" + who + "must be 0 or more");
    require(step.topPs[s] > 0 && step.topPs[s] <= 1, "topPs" + who + "must be above 0 and at most 1");
    require(step.topKs[s] >= 0, "topKs" + who + "must be 0 or more");
    require(step.minPs[s] >= 0 && step.minPs[s] <= 1, "minPs" + who + "must be from 0 to 1");
    const int32_t top = topCountOf(step, s);
    require(top >= -1 && top <= std::min(model.vocabularySize, 128), "topCounts: must be from -1 to 128, within the vocabulary");
    const bool hasRules = step.repetitionPenalties != nullptr && (step.countStarts[s] < step.countStarts[s + 1] || step.biasStarts[s] < step.biasStarts[s + 1]);
    require(drafts == 0 || (step.isSampled[s] != 0 && !hasRules && top < 0), "draftCounts" + who + "drafts need a sampled sequence without rules and scores");
  }
  for (int32_t i = 0; i < step.tokenCount; i++) {
    requireToken(step.tokenIds[i], 0, model.vocabularySize, "tokenIds");
    if (step.topCounts != nullptr) requireToken(step.scoredTokenIds[i], -1, model.vocabularySize, "scoredTokenIds");
  }
  if (step.repetitionPenalties != nullptr) checkRules(step, model.vocabularySize);
  int64_t sampledCount = 0, logprobCount = 0;
  const auto headRowCount = static_cast<int64_t>(headRowsOf(step, sampledCount, logprobCount).size());
  require(headRowCount <= limits.mostHeadRows, "step: needs the logits of " + std::to_string(headRowCount) + " rows, and mostHeadRows is " + std::to_string(limits.mostHeadRows));
}

StepPlan planStep(const VariatorCudaStep& step, const DeviceModel& model, const VariatorCudaLimits& limits, const StepLayout& layout,
                  int32_t splitTokens, int32_t paddedCount, int32_t chunkItemPairs, int32_t* words) {
  StepPlan plan;
  plan.tokenCount = step.tokenCount;
  plan.sequenceCount = step.sequenceCount;
  plan.isDecodeOnly = isDecodeOnly(step);
  const int32_t group = model.group();
  bool hasLongChunk = false;
  for (int32_t s = 0; s < step.sequenceCount; s++) hasLongChunk = hasLongChunk || (step.tokenStarts[s + 1] - step.tokenStarts[s]) * group > 32;
  plan.chunkRowTiles = hasLongChunk ? 4 : 1;
  const int32_t pairsAtOnce = chunkItemPairs > 0 ? chunkItemPairs : 16 * plan.chunkRowTiles;

  for (int32_t s = 0; s < step.sequenceCount; s++) {
    const int32_t start = step.tokenStarts[s], end = step.tokenStarts[s + 1], context = step.contextLengths[s];
    const int32_t* table = step.blockTables + int64_t{s} * step.blockTableStride;
    std::copy(table, table + step.blockTableStride, words + layout.blockTables + int64_t{s} * limits.mostBlocksPerSequence);
    words[layout.tokenStarts + s] = start;
    words[layout.contextLengths + s] = context;
    words[layout.partialStarts + s] = plan.splitCount;
    for (int32_t row = start; row < end; row++) {
      const int32_t position = context + row - start;
      words[layout.tokenIds + row] = step.tokenIds[row];
      words[layout.positions + row] = position;
      words[layout.slots + row] = table[position / kvBlockTokens] * kvBlockTokens + position % kvBlockTokens;
    }
    if (end - start == 1) {
      plan.splitCount += context / splitTokens + 1;
      for (int32_t pair = 0; pair < group; pair += 16) {
        words[layout.decodeSequences + plan.decodeItemCount] = s;
        words[layout.decodePairs + plan.decodeItemCount++] = pair;
      }
    } else {
      for (int32_t pair = 0; pair < (end - start) * group; pair += pairsAtOnce) {
        words[layout.chunkSequences + plan.chunkItemCount] = s;
        words[layout.chunkPairs + plan.chunkItemCount++] = pair;
      }
    }
  }
  words[layout.tokenStarts + step.sequenceCount] = step.tokenCount;
  // What only fills up a batch: a token that goes nowhere and attends to nothing.
  for (int32_t s = step.sequenceCount; s < paddedCount; s++) {
    words[layout.tokenIds + s] = words[layout.positions + s] = 0;
    words[layout.slots + s] = -1;
    words[layout.tokenStarts + s + 1] = s + 1;
    words[layout.contextLengths + s] = words[layout.partialStarts + s] = 0;
    for (int32_t pair = 0; pair < group; pair += 16) {
      words[layout.decodeSequences + plan.decodeItemCount] = -1;
      words[layout.decodePairs + plan.decodeItemCount++] = pair;
    }
  }

  plan.headRows = headRowsOf(step, plan.sampledCount, plan.logprobCount);
  if (plan.isDecodeOnly && paddedCount > 0) {
    // A graph computes every sequence's logits, in their order.
    std::vector<HeadRow> all;
    auto next = plan.headRows.begin();
    for (int32_t s = 0; s < paddedCount; s++) {
      if (next != plan.headRows.end() && next->row == s) all.push_back(*next++);
      else all.push_back({s, s, -1, -1, -1, false});
    }
    plan.headRows = all;
  }
  const auto setFloat = [&](int64_t at, float value) { std::memcpy(words + at, &value, 4); };
  for (size_t i = 0; i < plan.headRows.size(); i++) {
    const HeadRow& head = plan.headRows[i];
    const bool isOwn = head.sequence < step.sequenceCount;
    words[layout.headRows + i] = head.row;
    setFloat(layout.temperatures + i, isOwn ? step.temperatures[head.sequence] : 0);
    setFloat(layout.topPs + i, isOwn ? step.topPs[head.sequence] : 1);
    setFloat(layout.minPs + i, isOwn ? step.minPs[head.sequence] : 0);
    words[layout.topKs + i] = isOwn ? step.topKs[head.sequence] : 0;
    // The position of the token that is drawn.
    words[layout.drawPositions + i] = isOwn ? step.contextLengths[head.sequence] + head.row - step.tokenStarts[head.sequence] + 1 : 0;
    words[layout.seeds + 2 * i] = isOwn ? static_cast<int32_t>(step.seeds[2 * head.sequence]) : 0;
    words[layout.seeds + 2 * i + 1] = isOwn ? static_cast<int32_t>(step.seeds[2 * head.sequence + 1]) : 0;
  }
  return plan;
}

}  // namespace variator::cuda
