// attention.reference: causal paged attention in float32, over the whole context or a sliding window. Compiled once a
// tier. A pair's bits depend on its query and its keys alone: scores run along the context in lanes of 16 by position,
// sums in one order, whatever the chunk, the block size or the pairs beside it. Pairs that share a KV head are computed
// together so that K and V are read once.
#include "float_ops.h"
#include "kv_cache.h"
#include "lanes.h"

namespace variator {
namespace VARIATOR_TIER {
namespace {

constexpr int maxPairCount = AttentionCall::maxPairCount;

const float* floatsAt(const uint8_t* bytes) { return reinterpret_cast<const float*>(bytes); }

// Scores of 16 tokens for each pair: K is [headSize][16], four partial sums along headSize.
template <int count>
VARIATOR_INLINE void scoreTile(const AttentionCall& call, const float* keys, int64_t position) {
  Lanes sums[count][4]{};
  int64_t d = 0;
  const int64_t headSize = call.layout->headSize;
  for (; d + 4 <= headSize; d += 4) {
    for (int part = 0; part < 4; part++) {
      const Lanes key = load(keys + (d + part) * 16);
      for (int r = 0; r < count; r++) sums[r][part] += key * call.queries[r][d + part];
    }
  }
  for (; d < headSize; d++) {
    for (int r = 0; r < count; r++) sums[r][0] += load(keys + d * 16) * call.queries[r][d];
  }
  for (int r = 0; r < count; r++) {
    const Lanes score = (sums[r][0] + sums[r][1]) + (sums[r][2] + sums[r][3]);
    store(call.scores + r * call.scoreStride + position, score * call.scale);
  }
}

template <int count>
void scoreContext(const AttentionCall& call, int64_t first, int64_t length) {
  const int64_t blockSize = call.layout->blockSize;
  for (int64_t block = first / blockSize; block * blockSize < length; block++) {
    const float* keys = floatsAt(call.blocks + call.blockTable[block] * call.blockBytes);
    const int64_t start = block * blockSize;
    for (int64_t t = 0; t < blockSize && start + t < length; t += 16) {
      scoreTile<count>(call, keys + t * call.layout->headSize, start + t);
    }
  }
}

// Scores of positions start to length become e^(score - most), others in their lanes 0; returns the sum of them.
float softmaxWeights(float* scores, int64_t start, int64_t length) {
  const int64_t begin = start / 16 * 16, end = (length + 15) / 16 * 16;
  for (int64_t i = begin; i < start; i++) scores[i] = scores[start];
  for (int64_t i = length; i < end; i++) scores[i] = scores[start];
  Lanes most = load(scores + begin);
  for (int64_t i = begin + 16; i < end; i += 16) most = maxOf(load(scores + i), most);
  const float top = maxOf(most);
  Lanes sum{};
  for (int64_t i = begin; i < end; i += 16) {
    Lanes weight = exponential(load(scores + i) - top);
    if (i < start) {
      for (int64_t lane = 0; lane < start - i; lane++) weight[lane] = 0;
    }
    if (i + 16 > length) {
      for (int64_t lane = length - i; lane < 16; lane++) weight[lane] = 0;
    }
    store(scores + i, weight);
    sum += weight;
  }
  return sumOf(sum);
}

// `lanes` * 16 dimensions of the weighted sum of V over tokens [from, to), added to `sums` in token order.
template <int count, int lanes>
VARIATOR_INLINE void addValues(const AttentionCall& call, int firstPair, int64_t dimension, int64_t from, int64_t to,
                               Lanes (&sums)[count][lanes]) {
  const int64_t valueStride = call.layout->valueStride, blockSize = call.layout->blockSize;
  while (from < to) {
    const int64_t block = from / blockSize;
    const int64_t start = block * blockSize;
    const int64_t end = to < start + blockSize ? to : start + blockSize;
    const float* values =
        floatsAt(call.blocks + call.blockTable[block] * call.blockBytes + call.layout->valueOffset) + dimension;
    for (int64_t t = from; t < end; t++) {
      const float* value = values + (t - start) * valueStride;
      for (int v = 0; v < lanes; v++) {
        const Lanes part = load(value + 16 * v);
        for (int r = 0; r < count; r++) {
          sums[r][v] += part * call.scores[(firstPair + r) * call.scoreStride + t];
        }
      }
    }
    from = end;
  }
}

// Tokens that every pair attends to are read once for all; what only some attend to, before and behind them, for each.
template <int count, int lanes>
void weighValues(const AttentionCall& call, int64_t dimension, const float* totals) {
  int64_t from = call.starts[0], to = call.lengths[0];
  for (int r = 1; r < count; r++) {
    from = call.starts[r] > from ? call.starts[r] : from;
    to = call.lengths[r] < to ? call.lengths[r] : to;
  }
  if (from > to) from = to;  // windows without a token in common
  Lanes sums[count][lanes]{};
  for (int r = 0; r < count; r++) {
    if (call.starts[r] >= from) continue;
    Lanes own[1][lanes]{};
    addValues<1, lanes>(call, r, dimension, call.starts[r], from, own);
    for (int v = 0; v < lanes; v++) sums[r][v] = own[0][v];
  }
  addValues<count, lanes>(call, 0, dimension, from, to, sums);
  for (int r = 0; r < count; r++) {
    Lanes own[1][lanes];
    for (int v = 0; v < lanes; v++) own[0][v] = sums[r][v];
    addValues<1, lanes>(call, r, dimension, call.starts[r] > to ? call.starts[r] : to, call.lengths[r], own);
    for (int v = 0; v < lanes; v++) {
      float out[16];
      store(out, own[0][v] / totals[r]);
      const int64_t first = dimension + 16 * v;
      for (int64_t i = 0; i < 16 && first + i < call.layout->valueSize; i++) call.outs[r][first + i] = out[i];
    }
  }
}

template <int count>
void attendPairs(const AttentionCall& call) {
  int64_t first = call.starts[0], longest = 0;
  for (int r = 0; r < count; r++) {
    first = call.starts[r] < first ? call.starts[r] : first;
    longest = call.lengths[r] > longest ? call.lengths[r] : longest;
  }
  scoreContext<count>(call, first, longest);
  float totals[count];
  for (int r = 0; r < count; r++) {
    totals[r] = softmaxWeights(call.scores + r * call.scoreStride, call.starts[r], call.lengths[r]);
  }
  int64_t dimension = 0;
  for (; dimension + 64 <= call.layout->valueSize; dimension += 64) weighValues<count, 4>(call, dimension, totals);
  for (; dimension < call.layout->valueSize; dimension += 16) weighValues<count, 1>(call, dimension, totals);
}

void attend(const AttentionCall& call) {
  switch (call.pairCount) {
    case 1: return attendPairs<1>(call);
    case 2: return attendPairs<2>(call);
    case 3: return attendPairs<3>(call);
    case 4: return attendPairs<4>(call);
    case 5: return attendPairs<5>(call);
    default: return attendPairs<maxPairCount>(call);
  }
}

void addSplit(const float* split, int64_t valueSize, float* state) {
  const int64_t padded = (valueSize + 15) / 16 * 16;
  if (split[padded + 1] == 0) return;
  if (state[padded + 1] == 0) {
    for (int64_t d = 0; d < padded; d += 16) store(state + d, load(split + d));
    state[padded] = split[padded];
    state[padded + 1] = split[padded + 1];
    return;
  }
  const float most = state[padded] > split[padded] ? state[padded] : split[padded];
  const Lanes before = exponential(fill(state[padded] - most)), now = exponential(fill(split[padded] - most));
  for (int64_t d = 0; d < padded; d += 16) store(state + d, load(state + d) * before + load(split + d) * now);
  state[padded] = most;
  state[padded + 1] = state[padded + 1] * before[0] + split[padded + 1] * now[0];
}

void finishSplits(const float* state, int64_t valueSize, float* out) {
  const float total = state[(valueSize + 15) / 16 * 16 + 1];
  for (int64_t d = 0; d < valueSize; d++) out[d] = state[d] / total;
}

}  // namespace

extern const AttentionOps attentionOps{attend, addSplit, finishSplits};

}  // namespace VARIATOR_TIER
}  // namespace variator
