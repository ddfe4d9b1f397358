// The road of a step, read from runThread downwards: every thread of the team runs it side by side and takes its share
// of each region (rows, panels or attention units; never a part of a sum, so that the thread count changes no bit).
// Barriers stand where a region reads what others wrote. All checks were made before (addon.cc, engine.cc).
#include "step.h"

#include <algorithm>
#include <cmath>

#include "logprobs.h"
#include "native_fault.h"

namespace variator {

void StepRunner::run(Step& step, const KvCache& kvCache, const PackedModel* packed) {
  step_ = &step;
  kvCache_ = &kvCache;
  packed_ = packed;
  isBroken_.store(false);
  // An assistant of a step before may be late: then it reads rows, and writes memory of its thread, that are about to move.
  if (step.tokenCount() > mostRows_ || step.threadCount > 1) units_.quiesce();
  mostRows_ = std::max(mostRows_, step.tokenCount());
  prepareScratch();
  listAttentionUnits();
  if (step.assistantCount > 0) {
    units_.begin();
    team_.callAssistants(step.assistantCount);
    runThread(0);
    units_.end();
  } else {
    team_.run(step.threadCount, [this](int thread) { runThread(thread); });
  }
  if (isBroken_.load()) throw NativeFault("the logits are not finite numbers: the model's weights are damaged");
}

void StepRunner::runThread(int thread) {
  const bool isAbsorbed = model_.shape.latent.isAbsorbed;
  embed(thread);
  for (int64_t layer = 0; layer < model_.shape.layerCount; layer++) {
    const auto& matrices = model_.matrices[layer];
    const auto* panels = packed_ ? &packed_->matrices[layer] : nullptr;

    normalise(thread, model_.vectors[layer].inputNorm, normed_);
    team_.barrier();

    if (model_.shape.hasLatents()) projectLatents(thread, layer);
    else project(thread, layer);
    team_.barrier();

    if (isAbsorbed) rotateAndStoreAbsorbed(thread, layer);
    else if (model_.shape.hasLatents()) rotateAndStoreLatents(thread, layer);
    else rotateAndStore(thread, layer);
    team_.barrier();

    if (isAbsorbed) {
      absorbQueries(thread, layer);
      team_.barrier();
    }
    attend(thread, layer);
    team_.barrier();
    if (isAbsorbed) {
      expandAttended(thread, layer);
      team_.barrier();
    }

    if (isPacked()) {
      const Share share = shareOf(step_->tokenCount(), thread, step_->threadCount);
      for (int64_t row = share.begin; row < share.end; row++) roundGroups(attended_, row, 0, padded(model_.shape.attendedSize()) / 32);
      team_.barrier();
    }

    addToHidden(thread, {&matrices.o, panels ? panels->o : Panels{}}, attended_);
    team_.barrier();

    normalise(thread, model_.vectors[layer].postAttentionNorm, normed_);
    team_.barrier();

    feedForward(thread, layer);
  }
  finish(thread);
}

void StepRunner::project(int thread, int64_t layer) {
  const auto& matrices = model_.matrices[layer];
  const auto* panels = packed_ ? &packed_->matrices[layer] : nullptr;
  const Linear projections[3] = {{&matrices.q, panels ? panels->q : Panels{}},
                                 {&matrices.k, panels ? panels->k : Panels{}},
                                 {&matrices.v, panels ? panels->v : Panels{}}};
  float* const outs[3] = {q_, k_, v_};
  multiplyInto(thread, projections, 3, normed_, outs);
}

// Rows of the embedding, and the rotary angles of their positions: the product in float32, as the models were trained
// with, its cosine and sine in float64.
void StepRunner::embed(int thread) {
  const ModelShape& shape = model_.shape;
  const int64_t half = shape.ropeSize() / 2;
  const Share share = shareOf(step_->tokenCount(), thread, step_->threadCount);
  for (int64_t row = share.begin; row < share.end; row++) {
    floatOps().dequantiseRow(model_.embedding.row(step_->tokenIds[row]), model_.embedding.dtype, shape.hiddenSize,
                             hidden_ + row * padded(shape.hiddenSize));
    for (int64_t i = 0; i < half; i++) {
      const float angle = static_cast<float>(positions_[row]) * shape.ropeInverseFrequencies[i];
      const float factor = shape.ropeAttentionFactor;
      cosines_[row * half + i] = static_cast<float>(std::cos(static_cast<double>(angle))) * factor;
      sines_[row * half + i] = static_cast<float>(std::sin(static_cast<double>(angle))) * factor;
    }
  }
  team_.barrier();
}

void StepRunner::normalise(int thread, const std::vector<float>& weight, const Activations& out) {
  const int64_t size = model_.shape.hiddenSize;
  const Share share = shareOf(step_->tokenCount(), thread, step_->threadCount);
  for (int64_t row = share.begin; row < share.end; row++) {
    floatOps().rmsNorm(hidden_ + row * padded(size), weight.data(), size, model_.shape.rmsNormEpsilon,
                       out.values + row * out.stride);
    if (isPacked()) roundGroups(out, row, 0, padded(size) / 32);
  }
}

void StepRunner::roundGroups(const Activations& rows, int64_t row, int64_t firstGroup, int64_t groupCount) const {
  const int64_t group = row * (rows.stride / 32) + firstGroup, column = group * 32;
  if (step_->linear.family == LinearFamily::Bf16) {
    floatOps().roundToBf16(rows.values + column, groupCount * 32, rows.bf16 + column);
  } else {
    floatOps().quantise(rows.values + column, groupCount, rows.codes + column, rows.scales + group, rows.scaledSums + group);
    if (step_->linear.family == LinearFamily::Int8Residual) {
      roundRest(rows.values + column, groupCount, rows.codes + column, rows.scales + group, rows.restCodes + column,
                rows.restScales + group, rows.restScaledSums + group);
    }
  }
}

void StepRunner::multiplyInto(int thread, const Linear* linears, int linearCount, const Activations& rows,
                              float* const* outs) {
  Region region = regionOf(Take::Into, linears, linearCount, rows, 0, step_->tokenCount());
  std::copy(outs, outs + linearCount, region.outs);
  multiply(thread, region);
}

void StepRunner::addToHidden(int thread, const Linear& linear, const Activations& rows) {
  multiply(thread, regionOf(Take::AddToHidden, &linear, 1, rows, 0, step_->tokenCount()));
}

// Biases, per-head norms and rotation of q and k; k and v go into the cache.
void StepRunner::rotateAndStore(int thread, int64_t layer) {
  const ModelShape& shape = model_.shape;
  const LayerVectors& vectors = model_.vectors[layer];
  const int64_t size = shape.headSize, half = size / 2;
  const auto addBias = [](const std::vector<float>& bias, float* row) {
    if (!bias.empty()) floatOps().add(bias.data(), static_cast<int64_t>(bias.size()), row);
  };
  const Share share = shareOf(step_->tokenCount(), thread, step_->threadCount);
  for (int64_t row = share.begin; row < share.end; row++) {
    float* q = q_ + row * padded(shape.querySize());
    float* k = k_ + row * padded(shape.keySize());
    float* v = v_ + row * padded(shape.keySize());
    addBias(vectors.qBias, q);
    addBias(vectors.kBias, k);
    addBias(vectors.vBias, v);
    const auto turn = [&](float* head, const std::vector<float>& norm) {
      if (!norm.empty()) floatOps().rmsNorm(head, norm.data(), size, shape.rmsNormEpsilon, head);
      floatOps().rotate(head, cosines_ + row * half, sines_ + row * half, half, shape.isRopeInterleaved);
    };
    for (int64_t head = 0; head < shape.headCount; head++) turn(q + head * size, vectors.qNorm);
    for (int64_t head = 0; head < shape.kvHeadCount; head++) {
      turn(k + head * size, vectors.kNorm);
      storeKeyValue(layer, head, row, k + head * size, v + head * size);
    }
  }
}

void StepRunner::storeKeyValue(int64_t layer, int64_t kvHead, int64_t row, const float* key, const float* value) const {
  const int64_t position = positions_[row];
  const int32_t* table = step_->blockTables.data() + sequences_[row] * step_->blockTableStride;
  const int64_t block = table[position / kvCache_->blockSize];
  kvOps(kvCache_->format()).write(kvCache_->layout(), kvCache_->blocks(layer, kvHead) + block * kvCache_->blockBytes(),
                                  position % kvCache_->blockSize, key, value);
}

// Final norm, LM head and sampling, of the rows that need them, in portions.
void StepRunner::finish(int thread) {
  const auto headRowCount = static_cast<int64_t>(headRows_.size());
  const int64_t stride = padded(model_.shape.vocabularySize);
  for (int64_t first = 0; first < headRowCount; first += headRowsAtOnce()) {
    const int64_t rowCount = std::min(headRowsAtOnce(), headRowCount - first);
    computeLogits(thread, first, rowCount);
    const Share share = shareOf(rowCount, thread, step_->threadCount);
    for (int64_t i = share.begin; i < share.end; i++) {
      const HeadRow& row = headRows_[first + i];
      const float* logits = logits_ + i * stride;
      if (row.scoredTokenId >= 0) score(row, row.scoredTokenId, logits, threads_[thread]);
      else chooseToken(row, logits, threads_[thread]);
    }
  }
}

void StepRunner::computeLogits(int thread, int64_t firstHeadRow, int64_t rowCount) {
  const ModelShape& shape = model_.shape;
  const Share share = shareOf(rowCount, thread, step_->threadCount);
  for (int64_t i = share.begin; i < share.end; i++) {
    const int64_t row = headRows_[firstHeadRow + i].row;
    floatOps().rmsNorm(hidden_ + row * padded(shape.hiddenSize), model_.finalNorm.data(), shape.hiddenSize,
                       shape.rmsNormEpsilon, normed_.values + i * normed_.stride);
    if (isPacked()) roundGroups(normed_, i, 0, padded(shape.hiddenSize) / 32);
  }
  team_.barrier();

  const Linear head{&model_.head, packed_ ? packed_->head : Panels{}};
  Region region = regionOf(Take::Into, &head, 1, normed_, 0, rowCount);
  region.outs[0] = logits_;
  multiply(thread, region);
  team_.barrier();
}

void StepRunner::chooseToken(const HeadRow& row, const float* logits, ThreadScratch& scratch) {
  const int64_t vocabularySize = model_.shape.vocabularySize;
  const int32_t sequence = row.sequence;
  if (step_->isLogitsWanted && row.row == step_->tokenStarts[sequence + 1] - 1) {
    std::copy(logits, logits + vocabularySize, step_->logits.begin() + sequence * vocabularySize);
  }
  if (step_->isSampled[sequence] == 0) return;
  const float* ruled = logits;
  Sampling sampling = step_->samplings[sequence];
  if (step_->rules && step_->rules->changesLogits(sequence)) {
    std::copy(logits, logits + vocabularySize, scratch.sampling.ruled.begin());
    sampling.hasBans = applyRules(*step_->rules, sequence, scratch.sampling.ruled.data());
    ruled = scratch.sampling.ruled.data();
  }
  const int64_t position = positions_[row.row] + 1;
  const int32_t token = sampleToken(ruled, vocabularySize, sampling, position, scratch.sampling);
  if (token < 0) isBroken_.store(true);
  step_->sampledTokenIds[row.sampledAt] = token;
  if (token >= 0 && row.logprobsAt >= 0) score(row, token, logits, scratch);
}

void StepRunner::score(const HeadRow& row, int32_t tokenId, const float* logits, ThreadScratch& scratch) {
  const bool isFinite = scoreRow(logits, model_.shape.vocabularySize, tokenId, step_->scoring->topCounts[row.sequence],
                                 scratch.sampling.weights, step_->logprobTokenIds.data() + row.logprobsAt,
                                 step_->logprobs.data() + row.logprobsAt);
  if (!isFinite) isBroken_.store(true);
}

}  // namespace variator
