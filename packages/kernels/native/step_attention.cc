// The attention of a step: the list of units that its threads share out, and what one unit is. Part of StepRunner; units
// are taken as threads become free, and who computes one changes nothing in it. Called by step.cc.
#include <algorithm>
#include <cmath>

#include "step.h"

namespace variator {
namespace {

int64_t upTo(int64_t count, int64_t at) { return (count + at - 1) / at; }

}  // namespace

KvFormat kvFormatOf(AttentionVariant attention) {
  if (attention == AttentionVariant::Bf16) return KvFormat::Bf16;
  return attention == AttentionVariant::Int8 ? KvFormat::Int8 : KvFormat::Float32;
}

AttentionRows StepRunner::beginAttention(Step& step, const KvCache& kvCache) {
  step_ = &step;
  kvCache_ = &kvCache;
  units_.quiesce();
  mostRows_ = std::max(mostRows_, step.tokenCount());
  prepareScratch();
  const ModelShape& shape = model_.shape;
  if (!shape.latent.isAbsorbed) {
    const int64_t stride = padded(shape.querySize());
    return {q_, stride, step.tokenCount() * stride, attended_.values, attended_.stride};
  }
  const int64_t headRows = shape.headCount * step.tokenCount(), size = shape.cachedKeySize();
  return {latentQuery_, size, headRows * size, attendedLatent_.values, attendedLatent_.stride};
}

AttentionTuning StepRunner::attentionTuningOf(int64_t sequence) const {
  // The reference is what it is.
  if (!isSplit()) return {};
  const int64_t rowCount = step_->chunkLength(sequence);
  AttentionTuning tuning = step_->attentionDispatch.of(rowCount, step_->contextLengths[sequence] + rowCount);
  // Rows of float32 are long enough for the machine to see the next one coming by itself.
  if (step_->attentionDispatch.tunings.empty() && step_->attention == AttentionVariant::Float32) tuning.prefetchBlocks = 0;
  return tuning;
}

void StepRunner::listAttentionUnits() {
  const ModelShape& shape = model_.shape;
  const int64_t headsPerKvHead = shape.headCount / shape.cachedHeadCount();
  const auto pairsPerUnit = [](const AttentionTuning& tuning) { return int64_t{tuning.pairsAtOnce} * tuning.groupsPerSplit; };
  int64_t wholeCount = 0;
  attentionTunings_.clear();
  for (int64_t s = 0; s < step_->sequenceCount(); s++) {
    attentionTunings_.push_back(attentionTuningOf(s));
    wholeCount += shape.cachedHeadCount() * upTo(step_->chunkLength(s) * headsPerKvHead, pairsPerUnit(attentionTunings_.back()));
  }
  attentionUnits_.clear();
  splitGroups_.clear();
  int64_t resultsAt = 0;
  for (int64_t s = 0; s < step_->sequenceCount(); s++) {
    const AttentionTuning& tuning = attentionTunings_[s];
    const int64_t pairCount = step_->chunkLength(s) * headsPerKvHead;
    const int64_t partCount = upTo(pairCount, pairsPerUnit(tuning));
    const bool isCut = isSplit() && step_->threadCount > 1 && wholeCount < int64_t{tuning.leastUnitsPerThread} * step_->threadCount;
    for (int64_t kvHead = 0; kvHead < shape.cachedHeadCount(); kvHead++) {
      for (int64_t part = 0; part < partCount; part++) {
        const int64_t first = pairCount * part / partCount, end = pairCount * (part + 1) / partCount;
        const int64_t length = step_->contextLengths[s] + (end - 1) / headsPerKvHead + 1;
        const auto splitCount = static_cast<int32_t>(isSplit() ? upTo(length, step_->splitTokens) : 1);
        AttentionUnit unit{static_cast<int32_t>(s), static_cast<int32_t>(kvHead), static_cast<int32_t>(first),
                           static_cast<int32_t>(end - first), static_cast<int32_t>(upTo(end - first, tuning.pairsAtOnce)),
                           tuning.prefetchBlocks, 0, splitCount, -1};
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
    if (isSplit()) {
      attendSplits(unit, layer, call, scratch);
    } else {
      aimAt(unit, layer, unit.firstPair, unit.pairCount, call);
      attentionOps().attend(call);
    }
  }
}

void StepRunner::aimAt(const AttentionUnit& unit, int64_t layer, int64_t firstPair, int64_t pairCount,
                       AttentionCall& call) const {
  const ModelShape& shape = model_.shape;
  const int64_t headsPerKvHead = shape.headCount / shape.cachedHeadCount(), window = shape.windowTokens[layer];
  call.blocks = kvCache_->blocks(layer, unit.kvHead);
  call.blockTable = step_->blockTables.data() + unit.sequence * step_->blockTableStride;
  call.pairCount = static_cast<int>(pairCount);
  call.prefetchBlocks = unit.prefetchBlocks;
  for (int64_t pair = 0; pair < pairCount; pair++) {
    const int64_t row = step_->tokenStarts[unit.sequence] + (firstPair + pair) / headsPerKvHead;
    const int64_t head = unit.kvHead * headsPerKvHead + (firstPair + pair) % headsPerKvHead;
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

// All splits one after the other, each by all groups of pairs while it is near; or one split, whose results wait for the
// others: whoever computes the last brings them together.
void StepRunner::attendSplits(const AttentionUnit& unit, int64_t layer, AttentionCall& call, ThreadScratch& scratch) {
  const int64_t valueSize = model_.shape.cachedValueSize(), size = splitSize(valueSize);
  const AttendSplit attendOne = attendSplit(kvCache_->format());
  const AttentionOps& ops = attentionOps();
  float* states = scratch.splits.sized((unit.pairCount + AttentionCall::maxPairCount) * size);
  float* results = states + unit.pairCount * size;
  const bool isWhole = unit.group < 0;
  const SplitGroup group = isWhole ? SplitGroup{} : splitGroups_[unit.group];
  const auto resultsOf = [&](int32_t split) { return splitResults_ + group.resultsAt + split * unit.pairCount * size; };
  const auto add = [&](const float* from, int64_t first, int64_t count) {
    for (int64_t pair = 0; pair < count; pair++) ops.addSplit(from + pair * size, valueSize, states + (first + pair) * size);
  };
  for (int64_t pair = 0; pair < unit.pairCount; pair++) states[pair * size + call.layout->valueStride + 1] = 0;
  for (int32_t split = unit.firstSplit; split < unit.firstSplit + unit.splitCount; split++) {
    const int64_t from = split * step_->splitTokens, to = from + step_->splitTokens;
    for (int64_t index = 0; index < unit.groupCount; index++) {
      const int64_t first = unit.pairCount * index / unit.groupCount;
      const int64_t count = unit.pairCount * (index + 1) / unit.groupCount - first;
      aimAt(unit, layer, unit.firstPair + first, count, call);
      float* outs = isWhole ? results : resultsOf(split) + first * size;
      bool isEmpty = true;
      for (int64_t pair = 0; pair < count; pair++) {
        call.starts[pair] = std::max(call.starts[pair], from);
        call.lengths[pair] = std::min(call.lengths[pair], to);
        call.outs[pair] = outs + pair * size;
        isEmpty = isEmpty && call.starts[pair] >= call.lengths[pair];
      }
      if (isWhole && isEmpty) continue;
      attendOne(call);
      if (isWhole) add(outs, first, count);
    }
  }
  if (!isWhole) {
    if (doneSplitCounts_[unit.group].fetch_add(1, std::memory_order_acq_rel) + 1 < group.splitCount) return;
    doneSplitCounts_[unit.group].store(0, std::memory_order_relaxed);
    for (int32_t split = 0; split < group.splitCount; split++) add(resultsOf(split), 0, unit.pairCount);
  }
  for (int64_t index = 0; index < unit.groupCount; index++) {
    const int64_t first = unit.pairCount * index / unit.groupCount;
    const int64_t count = unit.pairCount * (index + 1) / unit.groupCount - first;
    aimAt(unit, layer, unit.firstPair + first, count, call);
    for (int64_t pair = 0; pair < count; pair++) ops.finishSplits(states + (first + pair) * size, valueSize, call.outs[pair]);
  }
}

}  // namespace variator
