// The attention of a step: the list of units that its threads share out, and what one unit is. Part of StepRunner; units
// are taken as threads become free, and who computes one changes nothing in it. Called by step.cc.
#include <algorithm>
#include <cmath>

#include "step.h"

namespace variator {
namespace {

// With fewer groups of pairs than so many a thread, long contexts are cut into units, too.
constexpr int64_t leastGroupsPerThread = 4;

}  // namespace

KvFormat kvFormatOf(AttentionVariant attention) {
  if (attention == AttentionVariant::Bf16) return KvFormat::Bf16;
  return attention == AttentionVariant::Int8 ? KvFormat::Int8 : KvFormat::Float32;
}

void StepRunner::listAttentionUnits() {
  const ModelShape& shape = model_.shape;
  const int64_t headsPerKvHead = shape.headCount / shape.cachedHeadCount();
  constexpr int64_t most = AttentionCall::maxPairCount;
  int64_t groupCount = 0;
  for (int64_t s = 0; s < step_->sequenceCount(); s++) {
    groupCount += shape.cachedHeadCount() * ((step_->chunkLength(s) * headsPerKvHead + most - 1) / most);
  }
  const int64_t splitTokens = step_->splitTokens;
  const bool isCut = isSplit() && step_->threadCount > 1 && groupCount < leastGroupsPerThread * step_->threadCount;
  attentionUnits_.clear();
  splitGroups_.clear();
  int64_t resultsAt = 0;
  for (int64_t s = 0; s < step_->sequenceCount(); s++) {
    const int64_t pairCount = step_->chunkLength(s) * headsPerKvHead;
    const int64_t partCount = (pairCount + most - 1) / most;
    for (int64_t kvHead = 0; kvHead < shape.cachedHeadCount(); kvHead++) {
      for (int64_t part = 0; part < partCount; part++) {
        const int64_t first = pairCount * part / partCount, end = pairCount * (part + 1) / partCount;
        const int64_t length = step_->contextLengths[s] + (end - 1) / headsPerKvHead + 1;
        const auto splitCount = static_cast<int32_t>((length + splitTokens - 1) / splitTokens);
        AttentionUnit unit{static_cast<int32_t>(s), static_cast<int32_t>(kvHead), static_cast<int32_t>(first),
                           static_cast<int32_t>(end - first), 0, splitCount, -1};
        if (!isCut || splitCount == 1) {
          attentionUnits_.push_back(unit);
          continue;
        }
        unit.group = static_cast<int32_t>(splitGroups_.size());
        unit.splitCount = 1;
        for (; unit.firstSplit < splitCount; unit.firstSplit++) attentionUnits_.push_back(unit);
        splitGroups_.push_back({resultsAt, splitCount});
        resultsAt += splitCount * unit.pairCount * splitSize(shape.cachedValueSize());
      }
    }
  }
  splitResults_ = splitResultScratch_.sized(resultsAt);
  if (doneSplitCounts_.size() < splitGroups_.size()) doneSplitCounts_ = std::vector<std::atomic<int32_t>>(splitGroups_.size());
  for (auto& done : doneSplitCounts_) done.store(0, std::memory_order_relaxed);
  if (nextAttentionUnits_.empty()) nextAttentionUnits_ = std::vector<std::atomic<int32_t>>(shape.layerCount);
  for (auto& next : nextAttentionUnits_) next.store(0, std::memory_order_relaxed);
}

void StepRunner::attend(int thread, int64_t layer) {
  ThreadScratch& scratch = threads_[thread];
  const auto unitCount = static_cast<int32_t>(attentionUnits_.size());
  AttentionCall call{};
  call.layout = &kvCache_->layout();
  call.blockBytes = kvCache_->blockBytes();
  call.scale = model_.shape.latent.scoreFactor / std::sqrt(static_cast<float>(model_.shape.headSize));
  call.scores = scratch.scores.sized(AttentionCall::maxPairCount * scoreStride_);
  call.scoreStride = scoreStride_;
  call.weightCodes = scratch.weightCodes.sized(AttentionCall::maxPairCount * tileStride_ * 16);
  call.weightScales = scratch.weightScales.sized(AttentionCall::maxPairCount * tileStride_);
  call.tileStride = tileStride_;
  for (;;) {
    const int32_t index = nextAttentionUnits_[layer].fetch_add(1, std::memory_order_relaxed);
    if (index >= unitCount) return;
    const AttentionUnit& unit = attentionUnits_[index];
    aimAt(unit, layer, call);
    if (isSplit()) attendSplits(unit, call, scratch);
    else attentionOps().attend(call);
  }
}

void StepRunner::aimAt(const AttentionUnit& unit, int64_t layer, AttentionCall& call) const {
  const ModelShape& shape = model_.shape;
  const int64_t headsPerKvHead = shape.headCount / shape.cachedHeadCount(), window = shape.windowTokens[layer];
  call.blocks = kvCache_->blocks(layer, unit.kvHead);
  call.blockTable = step_->blockTables.data() + unit.sequence * step_->blockTableStride;
  call.pairCount = unit.pairCount;
  for (int pair = 0; pair < unit.pairCount; pair++) {
    const int64_t row = step_->tokenStarts[unit.sequence] + (unit.firstPair + pair) / headsPerKvHead;
    const int64_t head = unit.kvHead * headsPerKvHead + (unit.firstPair + pair) % headsPerKvHead;
    if (shape.latent.isAbsorbed) {
      const int64_t headRow = head * step_->tokenCount() + row;
      call.queries[pair] = latentQuery_ + headRow * shape.cachedKeySize();
      call.outs[pair] = attendedLatent_.values + headRow * attendedLatent_.stride;
    } else {
      call.queries[pair] = q_ + row * padded(shape.querySize()) + head * shape.headSize;
      call.outs[pair] = attended_.values + row * attended_.stride + head * shape.valueHeadSize();
    }
    call.lengths[pair] = positions_[row] + 1;
    call.starts[pair] = window == 0 ? 0 : std::max<int64_t>(0, call.lengths[pair] - window);
  }
}

// All splits one after the other; or one, whose result waits for the others: whoever computes the last brings them together.
void StepRunner::attendSplits(const AttentionUnit& unit, AttentionCall& call, ThreadScratch& scratch) {
  const int64_t valueSize = model_.shape.cachedValueSize(), size = splitSize(valueSize);
  const AttendSplit attendOne = attendSplit(kvCache_->format());
  const AttentionOps& ops = attentionOps();
  const AttentionCall whole = call;
  float* states = scratch.splits.sized(2 * AttentionCall::maxPairCount * size);
  float* results = states + AttentionCall::maxPairCount * size;
  const auto clear = [&] {
    for (int pair = 0; pair < unit.pairCount; pair++) states[pair * size + call.layout->valueStride + 1] = 0;
  };
  const auto finish = [&] {
    for (int pair = 0; pair < unit.pairCount; pair++) ops.finishSplits(states + pair * size, valueSize, whole.outs[pair]);
  };
  const bool isWhole = unit.group < 0;
  const SplitGroup group = isWhole ? SplitGroup{} : splitGroups_[unit.group];
  const auto resultOf = [&](int32_t split, int pair) {
    return isWhole ? results + pair * size : splitResults_ + group.resultsAt + (split * unit.pairCount + pair) * size;
  };
  clear();
  for (int32_t split = unit.firstSplit; split < unit.firstSplit + unit.splitCount; split++) {
    const int64_t from = split * step_->splitTokens, to = from + step_->splitTokens;
    for (int pair = 0; pair < unit.pairCount; pair++) {
      call.starts[pair] = std::max(whole.starts[pair], from);
      call.lengths[pair] = std::min(whole.lengths[pair], to);
      call.outs[pair] = resultOf(split, pair);
    }
    attendOne(call);
    if (!isWhole) continue;
    for (int pair = 0; pair < unit.pairCount; pair++) ops.addSplit(call.outs[pair], valueSize, states + pair * size);
  }
  if (isWhole) return finish();
  if (doneSplitCounts_[unit.group].fetch_add(1, std::memory_order_acq_rel) + 1 < group.splitCount) return;
  doneSplitCounts_[unit.group].store(0, std::memory_order_relaxed);
  for (int32_t split = 0; split < group.splitCount; split++) {
    for (int pair = 0; pair < unit.pairCount; pair++) ops.addSplit(resultOf(split, pair), valueSize, states + pair * size);
  }
  finish();
}

}  // namespace variator
