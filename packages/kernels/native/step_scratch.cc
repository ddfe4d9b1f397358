// What a step needs before its threads start: positions, the rows that reach the LM head, memory of the right sizes. Part
// of StepRunner; called by StepRunner::run on the compute thread.
#include <algorithm>

#include "step.h"

namespace variator {
Activations ActivationScratch::sized(int64_t rows, int64_t columns) {
  const int64_t stride = padded(columns);
  return {values.sized(rows * stride), codes.sized(rows * stride), scales.sized(rows * stride / 32),
          scaledSums.sized(rows * stride / 32), bf16.sized(rows * stride), restCodes.sized(rows * stride),
          restScales.sized(rows * stride / 32), restScaledSums.sized(rows * stride / 32), stride};
}

void StepRunner::prepareScratch() {
  const ModelShape& shape = model_.shape;
  const Step& step = *step_;
  const int64_t rows = step.tokenCount();
  positions_.resize(rows);
  sequences_.resize(rows);
  int64_t longest = 0;
  for (int64_t s = 0; s < step.sequenceCount(); s++) {
    for (int32_t row = step.tokenStarts[s]; row < step.tokenStarts[s + 1]; row++) {
      positions_[row] = step.contextLengths[s] + row - step.tokenStarts[s];
      sequences_[row] = static_cast<int32_t>(s);
    }
    longest = std::max<int64_t>(longest, step.contextLengths[s] + step.chunkLength(s));
  }
  listHeadRows();
  hidden_ = hiddenScratch_.sized(rows * padded(shape.hiddenSize));
  cosines_ = cosinesScratch_.sized(rows * shape.ropeSize() / 2);
  sines_ = sinesScratch_.sized(rows * shape.ropeSize() / 2);
  q_ = qScratch_.sized(rows * padded(shape.querySize()));
  if (shape.hasLatents()) {
    prepareLatents();
  } else {
    k_ = kScratch_.sized(rows * padded(shape.keySize()));
    v_ = vScratch_.sized(rows * padded(shape.keySize()));
  }
  logits_ = logitsScratch_.sized(headRowsAtOnce() * padded(shape.vocabularySize));
  normed_ = normedScratch_.sized(rows, shape.hiddenSize);
  attended_ = attendedScratch_.sized(rows, shape.attendedSize());
  const ExpertShape& experts = shape.experts;
  gated_ = gatedScratch_.sized(rows, std::max(shape.intermediateSize, experts.sharedIntermediateSize));
  if (experts.expertCount > 0) prepareExperts();
  const int64_t positions = isSplit() ? std::min(longest, step.splitTokens) : longest;
  scoreStride_ = (positions + kvCache_->blockSize + 79) / 16 * 16;
  tileStride_ = step.attention == AttentionVariant::Int8 ? splitTileCount(positions, kvCache_->blockSize) : 0;

  for (int t = 0; t < step.threadCount; t++) {
    ThreadScratch& scratch = threads_[t];
    scratch.weightRows.sized(4 * padded(std::max({shape.hiddenSize, shape.attendedSize(), shape.intermediateSize,
                                                  experts.intermediateSize, experts.sharedIntermediateSize,
                                                  shape.latent.queryRank, shape.latent.keyValueRank,
                                                  shape.headSize})));
    scratch.key.sized(shape.cachedKeySize());
    scratch.scores.sized(AttentionCall::maxPairCount * scoreStride_);
    scratch.weightCodes.sized(AttentionCall::maxPairCount * tileStride_ * 16);
    scratch.weightScales.sized(AttentionCall::maxPairCount * tileStride_);
    if (step.rules) scratch.sampling.ruled.resize(shape.vocabularySize);
    scratch.sampling.weights.resize(shape.vocabularySize);
    scratch.sampling.candidates.resize(shape.vocabularySize);
  }
  if (step.isLogitsWanted) step_->logits.resize(step.sequenceCount() * shape.vocabularySize);
}

void StepRunner::prepareLatents() {
  const ModelShape& shape = model_.shape;
  const LatentShape& latent = shape.latent;
  const int64_t rows = step_->tokenCount();
  keyValueDown_ = keyValueDownScratch_.sized(rows * padded(latent.keyValueRank + latent.ropeSize));
  if (latent.isAbsorbed) {
    const int64_t headRows = shape.headCount * rows;
    ownQuery_ = ownQueryScratch_.sized(headRows, shape.ownKeySize());
    attendedLatent_ = attendedLatentScratch_.sized(headRows, latent.keyValueRank);
    latentQuery_ = latentQueryScratch_.sized(headRows * shape.cachedKeySize());
  } else {
    keyValueUp_ = keyValueUpScratch_.sized(rows * padded(shape.headCount * shape.upHeadSize()));
  }
  keyValueLatent_ = keyValueLatentScratch_.sized(rows, latent.keyValueRank);
  if (latent.queryRank == 0) return;
  queryDown_ = queryDownScratch_.sized(rows * padded(latent.queryRank));
  queryLatent_ = queryLatentScratch_.sized(rows, latent.queryRank);
}

void StepRunner::prepareExperts() {
  const ExpertShape& experts = model_.shape.experts;
  const int64_t rows = step_->tokenCount(), entries = rows * experts.expertsPerToken;
  routerLogits_ = routerLogitsScratch_.sized(rows * padded(experts.expertCount));
  routed_ = routedScratch_.sized(entries, model_.shape.hiddenSize);
  routedGated_ = routedGatedScratch_.sized(entries, experts.intermediateSize);
  byExpert_.chosen.resize(entries);
  byExpert_.chosenWeights.resize(entries);
  byExpert_.rows.resize(entries);
  byExpert_.weights.resize(entries);
  if (nextExpertUnits_.empty()) nextExpertUnits_ = std::vector<std::atomic<int64_t>>(model_.shape.layerCount);
  for (auto& next : nextExpertUnits_) next.store(0, std::memory_order_relaxed);
}

int64_t StepRunner::headRowsAtOnce() const {
  return std::min(static_cast<int64_t>(headRows_.size()), std::max(leastHeadRowsAtOnce, step_->sequenceCount()));
}

void StepRunner::listHeadRows() {
  const Step& step = *step_;
  headRows_.clear();
  int64_t sampledAt = 0;
  for (int64_t s = 0; s < step.sequenceCount(); s++) {
    const int32_t end = step.tokenStarts[s + 1], draftCount = step.draftCounts[s];
    if (step.isSampled[s] != 0 || step.isLogitsWanted) {
      for (int32_t row = end - 1 - draftCount; row < end; row++) {
        headRows_.push_back({row, static_cast<int32_t>(s), -1, -1, sampledAt + row - (end - 1 - draftCount)});
      }
    }
    sampledAt += 1 + draftCount;
  }
  step_->sampledTokenIds.assign(sampledAt, -1);
  if (!step.scoring) return;
  int64_t at = 0, lastRow = 0;
  for (int64_t s = 0; s < step.sequenceCount(); s++) {
    const int64_t size = 1 + step.scoring->topCounts[s];
    if (size > 0) {
      for (int32_t row = step.tokenStarts[s]; row < step.tokenStarts[s + 1]; row++) {
        const int32_t tokenId = step.scoring->scoredTokenIds[row];
        if (tokenId < 0) continue;
        headRows_.push_back({row, static_cast<int32_t>(s), tokenId, at, -1});
        at += size;
      }
    }
    if (step.isSampled[s] == 0 && !step.isLogitsWanted) continue;
    if (size > 0 && step.isSampled[s] != 0) {
      headRows_[lastRow].logprobsAt = at;
      at += size;
    }
    lastRow += 1 + step.draftCounts[s];
  }
  step_->logprobTokenIds.resize(at);
  step_->logprobs.resize(at);
}

}  // namespace variator
