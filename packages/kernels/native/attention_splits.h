// Attention over one split of a context, for every KV format: scores of 16 positions at a time, weights, weighted sum of V.
// A format (attention_float32.cc, attention_bf16.cc, attention_int8.cc) says how a tile is scored and how values are added.
// A pair's bits depend on its query and its keys alone: every sum has one order, by position, and positions of the others
// take part with a weight of 0. Included only by files that are compiled once a tier; everything here is static.
#pragma once
#include "float_ops.h"
#include "wide.h"
#include "kv_cache.h"

namespace {

using variator::AttentionCall;
using variator::KvLayout;

constexpr int maxPairCount = AttentionCall::maxPairCount;

constexpr float noScore = -3.0e38f;

struct Span {
  int64_t first, last;  // positions that any pair attends to
  // scores[r * scoreStride + position - origin]; a tile may begin up to 15 positions before `first`.
  int64_t origin;
};

Span spanOf(const AttentionCall& call) {
  Span span{INT64_MAX, 0, 0};
  for (int r = 0; r < call.pairCount; r++) {
    if (call.starts[r] >= call.lengths[r]) continue;
    if (call.starts[r] < span.first) span.first = call.starts[r];
    if (call.lengths[r] > span.last) span.last = call.lengths[r];
  }
  if (span.first == INT64_MAX) span.first = 0;
  span.origin = span.first / 16 * 16 - 16;
  return span;
}

// Blocks lie apart, so the machine does not see the next one coming: its lines are asked for while this one is computed.
VARIATOR_INLINE void prefetchBlock(const AttentionCall& call, const Span& span, int64_t block, int64_t from, int64_t to) {
  const int64_t ahead = block + call.prefetchBlocks;
  if (call.prefetchBlocks == 0 || ahead * call.layout->blockSize >= span.last) return;
  const uint8_t* next = call.blocks + call.blockTable[ahead] * call.blockBytes;
  for (int64_t at = from; at < to; at += 64) __builtin_prefetch(next + at);
}

template <typename Format, int count>
void scoreSpan(const AttentionCall& call, const Span& span, const typename Format::Query (&queries)[count]) {
  const int64_t blockSize = call.layout->blockSize;
  for (int64_t block = span.first / blockSize; block * blockSize < span.last; block++) {
    const uint8_t* headBlock = call.blocks + call.blockTable[block] * call.blockBytes;
    prefetchBlock(call, span, block, 0, call.layout->valueOffset);
    const int64_t start = block * blockSize;
    const int64_t begin = span.first > start ? (span.first - start) / 16 * 16 : 0;
    for (int64_t t = begin; t < blockSize && start + t < span.last; t += 16) {
      float* scores = call.scores + start + t - span.origin;
      // As many pairs at a time as have their sums in registers.
      Format::template scoreTile<0, count < pairsInRegisters ? count : pairsInRegisters>(call, queries, headBlock, t, scores);
      if constexpr (count > pairsInRegisters) {
        Format::template scoreTile<pairsInRegisters, count - pairsInRegisters>(call, queries, headBlock, t, scores);
      }
    }
  }
}

VARIATOR_INLINE IntLanes inside(int64_t position, int64_t from, int64_t to) {
  const IntLanes lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const IntLanes none{};
  const IntLanes first = none + static_cast<int32_t>(from - position > 16 ? 16 : from - position < 0 ? 0 : from - position);
  const IntLanes behind = none + static_cast<int32_t>(to - position > 16 ? 16 : to - position < 0 ? 0 : to - position);
  return (lane >= first) & (lane < behind);
}

// Scores become weights e^(score - most), 0 outside [start, length); returns the sum and the most.
void weigh(float* scores, const Span& span, int64_t start, int64_t length, float* most, float* sum) {
  const int64_t begin = span.first / 16 * 16, end = (span.last + 15) / 16 * 16;
  Lanes top = fill(noScore);
  for (int64_t position = begin; position < end; position += 16) {
    const Lanes score = load(scores + position - span.origin);
    const bool isAll = position >= start && position + 16 <= length;
    top = maxOf(isAll ? score : inside(position, start, length) ? score : fill(noScore), top);
  }
  *most = maxOf(top);
  Lanes total{};
  for (int64_t position = begin; position < end; position += 16) {
    float* at = scores + position - span.origin;
    Lanes weight = exponential(load(at) - *most);
    if (position < start || position + 16 > length) weight = inside(position, start, length) ? weight : Lanes{};
    store(at, weight);
    total += weight;
  }
  *sum = start < length ? sumOf(total) : 0.0f;
}

template <typename Format, int count, int lanes>
void addSpan(const AttentionCall& call, const Span& span, int64_t dimension) {
  const int64_t blockSize = call.layout->blockSize;
  Wide sums[count][lanes];
#pragma GCC unroll 6
  for (int r = 0; r < count; r++) {
#pragma GCC unroll 4
    for (int v = 0; v < lanes; v++) sums[r][v] = noSum();
  }
  for (int64_t block = span.first / blockSize; block * blockSize < span.last; block++) {
    const uint8_t* headBlock = call.blocks + call.blockTable[block] * call.blockBytes;
    if (dimension == 0) prefetchBlock(call, span, block, call.layout->valueOffset, call.layout->headBlockBytes);
    const int64_t start = block * blockSize;
    const int64_t from = span.first > start ? span.first - start : 0;
    const int64_t to = span.last - start < blockSize ? span.last - start : blockSize;
    Format::template addValues<count, lanes>(call, headBlock, from, to, dimension, call.scores + start - span.origin, sums);
  }
#pragma GCC unroll 6
  for (int r = 0; r < count; r++) {
#pragma GCC unroll 4
    for (int v = 0; v < lanes; v++) store(call.outs[r] + dimension + 16 * v, sums[r][v]);
  }
}

template <typename Format, int count>
void attendPairs(const AttentionCall& call) {
  const Span span = spanOf(call);
  typename Format::Query queries[count];
  for (int r = 0; r < count; r++) Format::prepare(call, r, queries[r]);
  scoreSpan<Format, count>(call, span, queries);
  const int64_t stride = call.layout->valueStride;
  for (int r = 0; r < count; r++) {
    float* scores = call.scores + r * call.scoreStride;
    float* out = call.outs[r] + stride;
    weigh(scores, span, call.starts[r], call.lengths[r], out, out + 1);
  }
  int64_t dimension = 0;
  constexpr int lanes = valueLanesFor(count);
  for (; dimension + 16 * lanes <= stride; dimension += 16 * lanes) addSpan<Format, count, lanes>(call, span, dimension);
  for (; dimension < stride; dimension += 16) addSpan<Format, count, 1>(call, span, dimension);
}

template <typename Format>
void attendSplitOf(const AttentionCall& call) {
  switch (call.pairCount) {
    case 1: return Format::template attend<1>(call);
    case 2: return Format::template attend<2>(call);
    case 3: return Format::template attend<3>(call);
    case 4: return Format::template attend<4>(call);
    case 5: return Format::template attend<5>(call);
    default: return Format::template attend<maxPairCount>(call);
  }
}

}  // namespace
