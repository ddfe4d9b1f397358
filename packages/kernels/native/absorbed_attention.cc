// Multi-head latent attention with its projections absorbed (DeepSeek-V2, arXiv 2405.04434, section 2.1.3), part of
// StepRunner. The cache holds of a token its latent and the rotated part of its key, the same for all heads: one KV head,
// keys of keyValueRank + ropeSize, values of keyValueRank (the latent again, in the layout of values). Queries are taken into
// the latents' space by the transposed rows of keyValueUp that make keys, and what was attended to comes back by those that
// make values. Much smaller than keys and values of every head, for more arithmetic a cached token.
//
// Rows of one head lie together (row head * T + t), so that a head's matrix is read once a step.
#include <algorithm>

#include "step.h"

namespace variator {

void StepRunner::rotateAndStoreAbsorbed(int thread, int64_t layer) {
  const ModelShape& shape = model_.shape;
  const int64_t rank = shape.latent.keyValueRank, ropeSize = shape.ropeSize(), half = ropeSize / 2;
  const int64_t own = shape.ownKeySize(), keySize = shape.cachedKeySize(), rows = step_->tokenCount();
  float* key = threads_[thread].key.sized(keySize);
  const Share share = shareOf(rows, thread, step_->threadCount);
  for (int64_t row = share.begin; row < share.end; row++) {
    const auto turn = [&](float* part) {
      floatOps().rotate(part, cosines_ + row * half, sines_ + row * half, half, shape.isRopeInterleaved);
    };
    const float* latent = keyValueLatent_.values + row * keyValueLatent_.stride;
    const float* down = keyValueDown_ + row * padded(rank + ropeSize);
    std::copy(latent, latent + rank, key);
    std::copy(down + rank, down + rank + ropeSize, key + rank);
    turn(key + rank);
    storeKeyValue(layer, 0, row, key, latent);
    for (int64_t head = 0; head < shape.headCount; head++) {
      const float* query = q_ + row * padded(shape.querySize()) + head * shape.headSize;
      const int64_t headRow = head * rows + row;
      std::copy(query, query + own, ownQuery_.values + headRow * ownQuery_.stride);
      if (isPacked()) roundGroups(ownQuery_, headRow, 0, ownQuery_.stride / 32);
      float* rotated = latentQuery_ + headRow * keySize + rank;
      std::copy(query + own, query + own + ropeSize, rotated);
      turn(rotated);
    }
  }
}

// The queries without their rotated part, taken into the latents' space.
void StepRunner::absorbQueries(int thread, int64_t layer) {
  const int64_t keySize = model_.shape.cachedKeySize(), rank = model_.shape.latent.keyValueRank;
  multiplyHeads(thread, model_.matrices[layer].keyUpTransposed,
                packed_ ? &packed_->matrices[layer].keyUpTransposed : nullptr, ownQuery_,
                [&](int64_t head, int64_t row, int64_t column, const float* out) {
                  float* to = latentQuery_ + (head * step_->tokenCount() + row) * keySize + column;
                  std::copy(out, out + std::min<int64_t>(panelRows, rank - column), to);
                });
}

void StepRunner::expandAttended(int thread, int64_t layer) {
  const int64_t size = model_.shape.latent.valueHeadSize, rows = step_->tokenCount();
  if (isPacked()) {
    const Share share = shareOf(model_.shape.headCount * rows, thread, step_->threadCount);
    for (int64_t row = share.begin; row < share.end; row++) {
      roundGroups(attendedLatent_, row, 0, attendedLatent_.stride / 32);
    }
    team_.barrier();
  }
  multiplyHeads(thread, model_.matrices[layer].valueUp, packed_ ? &packed_->matrices[layer].valueUp : nullptr,
                attendedLatent_, [&](int64_t head, int64_t row, int64_t column, const float* out) {
                  float* to = attended_.values + row * attended_.stride + head * size + column;
                  std::copy(out, out + std::min<int64_t>(panelRows, size - column), to);
                });
}

template <typename Give>
void StepRunner::multiplyHeads(int thread, const std::vector<Tensor>& tensors, const std::vector<Panels>* panels,
                               const Activations& rows, const Give& give) {
  const int64_t rowCount = step_->tokenCount(), panelCount = panelCountOf(tensors[0]);
  ThreadScratch& scratch = threads_[thread];
  float* out = scratch.panels.sized(mostSlabRows * panelRows);
  const Share share = shareOf(static_cast<int64_t>(tensors.size()) * panelCount, thread, step_->threadCount);
  for (int64_t head = share.begin / panelCount; head * panelCount < share.end; head++) {
    const Linear linear{&tensors[head], panels ? (*panels)[head] : Panels{}};
    const LinearTuning tuning = tuningOf(linear, rowCount);
    const int64_t begin = std::max<int64_t>(share.begin - head * panelCount, 0);
    const int64_t end = std::min(share.end - head * panelCount, panelCount);
    walkPanels(begin, end, 0, rowCount, tuning, [&](int64_t panel, int64_t start, int64_t count) {
      multiplyPanel(step_->linear, linear, rows, panel, head * rowCount + start, count, tuning, scratch, out);
      for (int64_t m = 0; m < count; m++) give(head, start + m, panel * panelRows, out + m * panelRows);
    });
  }
}

}  // namespace variator
