// Greedy: the lowest index of the largest logit. Otherwise temperature, then min-p (a share of the likeliest token's
// probability), top-k, top-p (the smallest set of likeliest tokens that holds the share), then one draw by inverting the
// cumulative sum. The draw is a hash of (seed, position): splitmix64's finaliser (Steele, Lea and Flood, 2014), so that no
// state is carried between steps.
#include "sampling.h"

#include <algorithm>
#include <cmath>

#include "float_ops.h"

namespace variator {
namespace {

uint64_t mix(uint64_t bits) {
  bits += 0x9e3779b97f4a7c15ull;
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9ull;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebull;
  return bits ^ (bits >> 31);
}

// In [0, 1), 53 bits.
double draw(uint64_t seed, int64_t position) {
  return static_cast<double>(mix(mix(seed) ^ static_cast<uint64_t>(position)) >> 11) * 0x1.0p-53;
}

// The first token, in the given order, at which the running sum passes `share` of the total.
template <typename TokenAt>
int32_t pick(const std::vector<float>& weights, int64_t count, double total, double share, TokenAt tokenAt) {
  double sum = 0;
  int32_t last = tokenAt(0);
  for (int64_t i = 0; i < count; i++) {
    const int32_t token = tokenAt(i);
    if (weights[token] > 0) last = token;
    sum += weights[token];
    if (sum > share * total) return token;
  }
  return last;
}

}  // namespace

int32_t sampleToken(const float* logits, int64_t vocabularySize, const Sampling& sampling, int64_t position,
                    SamplingScratch& scratch) {
  const float most = floatOps().mostOf(logits, vocabularySize);
  if (!std::isfinite(most)) return -1;
  const auto first = static_cast<int32_t>(std::find(logits, logits + vocabularySize, most) - logits);
  if (sampling.temperature <= 0 || first == vocabularySize) return first == vocabularySize ? -1 : first;

  auto& weights = scratch.weights;
  const float factor = std::min(1.0f / sampling.temperature, 1e30f);
  floatOps().exponentials(logits, vocabularySize, most, factor, weights.data());
  if (sampling.minP > 0) {
    for (int64_t i = 0; i < vocabularySize; i++) weights[i] = weights[i] < sampling.minP ? 0 : weights[i];
  }
  // e^x is clamped from below, and what is banned must have no weight at all.
  if (sampling.hasBans) {
    for (int64_t i = 0; i < vocabularySize; i++) weights[i] = std::isinf(logits[i]) ? 0 : weights[i];
  }
  const double share = draw(sampling.seed, position);
  const bool isTopKOn = sampling.topK > 0 && sampling.topK < vocabularySize;
  double total = 0;
  for (int64_t i = 0; i < vocabularySize; i++) total += weights[i];
  if (!std::isfinite(total)) return -1;
  if (!isTopKOn && sampling.topP >= 1) {
    return pick(weights, vocabularySize, total, share, [](int64_t i) { return static_cast<int32_t>(i); });
  }

  auto& candidates = scratch.candidates;
  for (int64_t i = 0; i < vocabularySize; i++) candidates[i] = static_cast<int32_t>(i);
  const auto isLikelier = [&](int32_t a, int32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; };
  // Sorts the likeliest in growing portions: top-p seldom needs more than the first.
  int64_t sortedCount = 0;
  const auto sortUpTo = [&](int64_t count) {
    count = std::min(count, vocabularySize);
    if (count <= sortedCount) return;
    const auto from = candidates.begin() + sortedCount;
    if (count < vocabularySize) std::nth_element(from, candidates.begin() + count, candidates.end(), isLikelier);
    std::sort(from, candidates.begin() + count, isLikelier);
    sortedCount = count;
  };

  int64_t count = isTopKOn ? sampling.topK : vocabularySize;
  if (isTopKOn) {
    sortUpTo(count);
    total = 0;
    for (int64_t i = 0; i < count; i++) total += weights[candidates[i]];
  }
  if (sampling.topP < 1) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++) {
      if (i >= sortedCount) sortUpTo(sortedCount * 4 + 64);
      sum += weights[candidates[i]];
      if (sum >= static_cast<double>(sampling.topP) * total) {
        count = i + 1;
        total = sum;
      }
    }
  }
  return pick(weights, count, total, share, [&](int64_t i) { return candidates[i]; });
}

}  // namespace variator
