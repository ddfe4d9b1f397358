// Queries, keys and values of multi-head latent attention (DeepSeek-V2, arXiv 2405.04434), part of StepRunner: down to the
// latents, their norms, up to the heads, rotation, and into the cache. This is the expanded form: the cache holds keys and
// values of every head, and attention is that of any other model, with values of another size than keys. It judges the
// absorbed form (absorbed_attention.cc), which shares the way down to the latents.
#include <algorithm>

#include "step.h"

namespace variator {
namespace {

// Of the norms of latents; the models' configuration does not name it.
constexpr float latentEpsilon = 1e-6f;

}  // namespace

void StepRunner::projectLatents(int thread, int64_t layer) {
  const auto& matrices = model_.matrices[layer];
  const auto* panels = packed_ ? &packed_->matrices[layer] : nullptr;
  const auto linear = [&](auto member, auto panelsMember) {
    return Linear{&(matrices.*member), panels ? panels->*panelsMember : Panels{}};
  };
  using Tensors = LayerMatrices<Tensor>;
  using Packed = LayerMatrices<Panels>;
  const bool hasQueryLatent = model_.shape.latent.queryRank > 0;
  const Linear q = linear(&Tensors::q, &Packed::q);
  const Linear down[2] = {linear(&Tensors::keyValueDown, &Packed::keyValueDown),
                          hasQueryLatent ? linear(&Tensors::queryDown, &Packed::queryDown) : q};
  float* const downOuts[2] = {keyValueDown_, hasQueryLatent ? queryDown_ : q_};
  multiplyInto(thread, down, 2, normed_, downOuts);
  team_.barrier();

  normaliseLatents(thread, layer);
  team_.barrier();

  if (!model_.shape.latent.isAbsorbed) {
    const Linear up = linear(&Tensors::keyValueUp, &Packed::keyValueUp);
    multiplyInto(thread, &up, 1, keyValueLatent_, &keyValueUp_);
  }
  if (hasQueryLatent) multiplyInto(thread, &q, 1, queryLatent_, &q_);
}

void StepRunner::normaliseLatents(int thread, int64_t layer) {
  const LatentShape& latent = model_.shape.latent;
  const LayerVectors& vectors = model_.vectors[layer];
  const Share share = shareOf(step_->tokenCount(), thread, step_->threadCount);
  const auto normaliseRow = [&](const float* from, const std::vector<float>& weight, const Activations& out, int64_t row) {
    const auto size = static_cast<int64_t>(weight.size());
    floatOps().rmsNorm(from, weight.data(), size, latentEpsilon, out.values + row * out.stride);
    if (isPacked()) roundGroups(out, row, 0, padded(size) / 32);
  };
  for (int64_t row = share.begin; row < share.end; row++) {
    normaliseRow(keyValueDown_ + row * padded(latent.keyValueRank + latent.ropeSize), vectors.keyValueNorm,
                 keyValueLatent_, row);
    if (latent.queryRank == 0) continue;
    normaliseRow(queryDown_ + row * padded(latent.queryRank), vectors.queryNorm, queryLatent_, row);
  }
}

// The rotated part of a key is one for all heads: every head's key is its own part, then that.
void StepRunner::rotateAndStoreLatents(int thread, int64_t layer) {
  const ModelShape& shape = model_.shape;
  const int64_t half = shape.ropeSize() / 2, ownSize = shape.headSize - shape.ropeSize();
  float* key = threads_[thread].key.sized(shape.cachedKeySize());
  const Share share = shareOf(step_->tokenCount(), thread, step_->threadCount);
  for (int64_t row = share.begin; row < share.end; row++) {
    const auto turn = [&](float* part) {
      floatOps().rotate(part, cosines_ + row * half, sines_ + row * half, half, shape.isRopeInterleaved);
    };
    const float* down = keyValueDown_ + row * padded(shape.latent.keyValueRank + shape.ropeSize());
    std::copy(down + shape.latent.keyValueRank, down + shape.latent.keyValueRank + shape.ropeSize(), key + ownSize);
    turn(key + ownSize);
    for (int64_t head = 0; head < shape.headCount; head++) {
      turn(q_ + row * padded(shape.querySize()) + head * shape.headSize + ownSize);
      const float* up = keyValueUp_ + row * padded(shape.headCount * shape.upHeadSize()) + head * shape.upHeadSize();
      std::copy(up, up + ownSize, key);
      storeKeyValue(layer, head, row, key, up + ownSize);
    }
  }
}

}  // namespace variator
