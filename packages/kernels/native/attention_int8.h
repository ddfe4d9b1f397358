// attention.int8: keys and values as int8 with a scale for each token and head. The query is rounded to int8, too, so that
// scores are whole-number dot products, which every machine computes alike; weights take the scale of V along and stay
// float32. Included by attention_int8.cc (once a tier) and attention_int8_avx512vnni.cc; the flag says which instructions.
#pragma once
#include "attention_splits.h"

namespace {

constexpr int64_t mostHeadSize = 1024;

VARIATOR_INLINE IntLanes wordsAt(const uint8_t* from) {
  IntLanes words;
  __builtin_memcpy(&words, from, 64);
  return words;
}

struct Int8 {
  struct Query {
    alignas(64) int8_t codes[mostHeadSize];
    int32_t offset;  // 128 * sum of codes: keys are stored as code + 128
    float scale;
  };

  static void prepare(const AttentionCall& call, int pair, Query& query) {
    const float* values = call.queries[pair];
    const int64_t headSize = call.layout->headSize;
    float most = 0;
    for (int64_t d = 0; d < headSize; d++) {
      const float size = values[d] < 0 ? -values[d] : values[d];
      most = size > most ? size : most;
    }
    const float inverse = most > 0 ? 127.0f / most : 0.0f;
    int32_t sum = 0;
    const int64_t padded = (headSize + 3) / 4 * 4;
    for (int64_t d = 0; d < padded; d++) {
      const float scaled = d < headSize ? values[d] * inverse : 0.0f;
      const int32_t code = static_cast<int32_t>((scaled + 12582912.0f) - 12582912.0f);
      query.codes[d] = static_cast<int8_t>(code);
      sum += code;
    }
    query.offset = 128 * sum;
    query.scale = most / 127.0f * call.scale;
  }

  // Four dimensions of 16 tokens, u8, times four codes of the query.
  VARIATOR_INLINE IntLanes addDots(IntLanes sum, IntLanes keys, const int8_t* codes) {
    int32_t four;
    __builtin_memcpy(&four, codes, 4);
#if defined(VARIATOR_ATTENTION_VNNI)
    return (IntLanes)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)keys, _mm512_set1_epi32(four));
#else
    for (int j = 0; j < 4; j++) sum += (keys >> (8 * j) & 255) * static_cast<int32_t>(codes[j]);
    return sum;
#endif
  }

  template <int count>
  VARIATOR_INLINE void scoreTile(const AttentionCall& call, const Query (&queries)[count], const uint8_t* headBlock,
                                 int64_t t, float* scores) {
    const int64_t padded = (call.layout->headSize + 3) / 4 * 4;
    const uint8_t* keys = headBlock + call.layout->keyOffset + t * padded;
    IntLanes dots[count]{};
    for (int64_t d = 0; d < padded; d += 4) {
      const IntLanes key = wordsAt(keys + d * 16);
      for (int r = 0; r < count; r++) dots[r] = addDots(dots[r], key, queries[r].codes + d);
    }
    const Lanes scales = load(reinterpret_cast<const float*>(headBlock + call.layout->keyScaleOffset) + t);
    for (int r = 0; r < count; r++) {
      const Lanes dot = __builtin_convertvector(dots[r] - queries[r].offset, Lanes);
      store(scores + r * call.scoreStride, dot * (scales * queries[r].scale));
    }
  }

  // A weight takes its token's scale of V with it.
  static void scaleWeights(const AttentionCall& call, const Span& span, float* scores) {
    const int64_t blockSize = call.layout->blockSize;
    for (int64_t block = span.first / blockSize; block * blockSize < span.last; block++) {
      const uint8_t* headBlock = call.blocks + call.blockTable[block] * call.blockBytes;
      const float* scales = reinterpret_cast<const float*>(headBlock + call.layout->valueScaleOffset);
      const int64_t start = block * blockSize;
      for (int64_t t = span.first > start ? span.first - start : 0; t < blockSize && start + t < span.last; t++) {
        scores[start + t - span.origin] *= scales[t];
      }
    }
  }

  VARIATOR_INLINE Lanes codesAt(const uint8_t* from) {
#if defined(__AVX512F__)
    return (Lanes)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#else
    Bytes bytes;
    __builtin_memcpy(&bytes, from, 16);
    return lanesOf(bytes ^ 0x80) - 128.0f;
#endif
  }

  template <int count, int lanes>
  VARIATOR_INLINE void addValues(const AttentionCall& call, const uint8_t* headBlock, int64_t from, int64_t to,
                                 int64_t dimension, const float* weights, Lanes (&sums)[count][lanes]) {
    const int64_t stride = call.layout->valueStride;
    const uint8_t* values = headBlock + call.layout->valueOffset + dimension;
    for (int64_t t = from; t < to; t++) {
      for (int v = 0; v < lanes; v++) {
        const Lanes value = codesAt(values + t * stride + 16 * v);
        for (int r = 0; r < count; r++) sums[r][v] = multiplyAdd(value, fill(weights[r * call.scoreStride + t]), sums[r][v]);
      }
    }
  }
};

}  // namespace
