// attention.int8: keys and values as int8 with a scale for each token and head. The query is rounded to int8, too, so that
// scores are whole-number dot products, which every machine computes alike; so are weights times V, the weights of 16
// tokens together rounded to u8. Included by attention_int8.cc (once a tier) and attention_int8_avx512vnni.cc; the flag says which instructions.
#pragma once
#include "attention_splits.h"

namespace {

constexpr int64_t mostHeadSize = 1024;

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
  VARIATOR_INLINE Dots addDots(Dots sum, Dots keys, const int8_t* codes) {
#if defined(VARIATOR_ATTENTION_VNNI)
    int32_t four;
    __builtin_memcpy(&four, codes, 4);
    return (IntLanes)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)keys, _mm512_set1_epi32(four));
#elif defined(VARIATOR_TWO_REGISTERS)
    // Bytes 0 and 2 of each word, then 1 and 3, as 16-bit numbers: products in pairs, none of which can overflow.
    const __m256i even = _mm256_set1_epi32((codes[0] & 0xffff) | codes[2] * 65536);
    const __m256i odd = _mm256_set1_epi32((codes[1] & 0xffff) | codes[3] * 65536);
    const __m256i bytes = _mm256_set1_epi16(255);
    const auto add = [&](__m256i to, __m256i words) __attribute__((always_inline)) {
      const __m256i pairs = _mm256_madd_epi16(_mm256_and_si256(words, bytes), even);
      return _mm256_add_epi32(to, _mm256_add_epi32(pairs, _mm256_madd_epi16(_mm256_srli_epi16(words, 8), odd)));
    };
    return {add(sum.low, keys.low), add(sum.high, keys.high)};
#else
    for (int j = 0; j < 4; j++) sum += (keys >> (8 * j) & 255) * static_cast<int32_t>(codes[j]);
    return sum;
#endif
  }

  template <int first, int count, int all>
  VARIATOR_INLINE void scoreTile(const AttentionCall& call, const Query (&queries)[all], const uint8_t* headBlock,
                                 int64_t t, float* scores) {
    const int64_t padded = (call.layout->headSize + 3) / 4 * 4;
    const uint8_t* keys = headBlock + call.layout->keyOffset + t * padded;
    Dots dots[count];
#pragma GCC unroll 6
    for (int r = 0; r < count; r++) dots[r] = noDots();
    for (int64_t d = 0; d < padded; d += 4) {
      const Dots key = wordsAt(keys + d * 16);
#pragma GCC unroll 6
      for (int r = 0; r < count; r++) dots[r] = addDots(dots[r], key, queries[first + r].codes + d);
    }
    const Wide scales = wideAt(reinterpret_cast<const float*>(headBlock + call.layout->keyScaleOffset) + t);
#pragma GCC unroll 6
    for (int r = 0; r < count; r++) {
      const Wide dot = floatsOf(less(dots[r], queries[first + r].offset));
      store(scores + (first + r) * call.scoreStride, multiply(dot, multiply(scales, queries[first + r].scale)));
    }
  }

  // Weights of up to 16 tokens that lie together in a block, a tile, for every pair (call.weightCodes and weightScales): each
  // times its token's scale of V, as u8 codes with one scale. A token that a pair does not attend to has the code 0, so the
  // codes depend on its own tokens alone.
  VARIATOR_INLINE uint8_t* codesOf(const AttentionCall& call, int pair, int64_t tile) {
    return call.weightCodes + (pair * call.tileStride + tile) * 16;
  }
  VARIATOR_INLINE float& scaleOf(const AttentionCall& call, int pair, int64_t tile) {
    return call.weightScales[pair * call.tileStride + tile];
  }

  // Calls `take(headBlock, t, position, tile)` for every tile of the span: t its first token in the block.
  template <typename Take>
  VARIATOR_INLINE void forTiles(const AttentionCall& call, const Span& span, const Take& take) {
    const int64_t blockSize = call.layout->blockSize;
    int64_t tile = 0;
    for (int64_t block = span.first / blockSize; block * blockSize < span.last; block++) {
      const uint8_t* headBlock = call.blocks + call.blockTable[block] * call.blockBytes;
      const int64_t start = block * blockSize;
      const int64_t begin = span.first > start ? (span.first - start) / 16 * 16 : 0;
      for (int64_t t = begin; t < blockSize && start + t < span.last; t += 16) take(headBlock, t, start + t, tile++);
    }
  }

  static void roundWeights(const AttentionCall& call, const Span& span, int pair, const float* weights) {
    const int64_t blockSize = call.layout->blockSize;
    forTiles(call, span, [&](const uint8_t* headBlock, int64_t t, int64_t position, int64_t tile) {
      const int64_t left = blockSize - t;
      const int64_t end = position + left < span.last ? position + left : span.last;
      const Lanes scales = load(reinterpret_cast<const float*>(headBlock + call.layout->valueScaleOffset) + t);
      Lanes weight = load(weights + position - span.origin) * scales;
      if (position < span.first || position + 16 > end) weight = inside(position, span.first, end) ? weight : Lanes{};
      const float most = maxOf(weight);
      const float inverse = most > 0 ? 255.0f / most : 0.0f;
      const Bytes codes = bytesOf(nearest(weight * inverse));
      __builtin_memcpy(codesOf(call, pair, tile), &codes, 16);
      scaleOf(call, pair, tile) = most / 255.0f;
    });
  }

  // The codes of four tokens times theirs of V for 16 dimensions, s8.
  VARIATOR_INLINE Dots addValueDots(Dots sum, const uint8_t* codes, Dots values) {
#if defined(VARIATOR_ATTENTION_VNNI)
    int32_t four;
    __builtin_memcpy(&four, codes, 4);
    return (IntLanes)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(four), (__m512i)values);
#elif defined(VARIATOR_TWO_REGISTERS)
    const __m256i even = _mm256_set1_epi32(codes[0] | codes[2] << 16), odd = _mm256_set1_epi32(codes[1] | codes[3] << 16);
    const auto add = [&](__m256i to, __m256i words) __attribute__((always_inline)) {
      const __m256i pairs = _mm256_madd_epi16(_mm256_srai_epi16(_mm256_slli_epi16(words, 8), 8), even);
      return _mm256_add_epi32(to, _mm256_add_epi32(pairs, _mm256_madd_epi16(_mm256_srai_epi16(words, 8), odd)));
    };
    return {add(sum.low, values.low), add(sum.high, values.high)};
#else
    for (int j = 0; j < 4; j++) sum += (values << (24 - 8 * j) >> 24) * static_cast<int32_t>(codes[j]);
    return sum;
#endif
  }

  template <int count, int lanes>
  static void addSpan(const AttentionCall& call, const Span& span, int64_t dimension) {
    const int64_t stride = call.layout->valueStride, groupCount = (call.layout->blockSize + 3) / 4;
    Wide sums[count][lanes];
#pragma GCC unroll 6
    for (int r = 0; r < count; r++) {
#pragma GCC unroll 4
      for (int v = 0; v < lanes; v++) sums[r][v] = noSum();
    }
    forTiles(call, span, [&](const uint8_t* headBlock, int64_t t, int64_t position, int64_t tile) __attribute__((always_inline)) {
      if (dimension == 0 && t == 0) {
        prefetchBlock(call, span, position / call.layout->blockSize, call.layout->valueOffset, call.layout->headBlockBytes);
      }
      Dots dots[count][lanes];
#pragma GCC unroll 6
      for (int r = 0; r < count; r++) {
#pragma GCC unroll 4
        for (int v = 0; v < lanes; v++) dots[r][v] = noDots();
      }
      const uint8_t* values = headBlock + call.layout->valueOffset + 4 * dimension;
      for (int64_t g = 0; g < 4 && t / 4 + g < groupCount; g++) {
#pragma GCC unroll 4
        for (int v = 0; v < lanes; v++) {
          const Dots value = wordsAt(values + (t / 4 + g) * 4 * stride + 64 * v);
#pragma GCC unroll 6
          for (int r = 0; r < count; r++) dots[r][v] = addValueDots(dots[r][v], codesOf(call, r, tile) + 4 * g, value);
        }
      }
#pragma GCC unroll 6
      for (int r = 0; r < count; r++) {
        const float scale = scaleOf(call, r, tile);
#pragma GCC unroll 4
        for (int v = 0; v < lanes; v++) sums[r][v] = multiplyAdd(floatsOf(dots[r][v]), scale, sums[r][v]);
      }
    });
#pragma GCC unroll 6
    for (int r = 0; r < count; r++) {
#pragma GCC unroll 4
      for (int v = 0; v < lanes; v++) store(call.outs[r] + dimension + 16 * v, sums[r][v]);
    }
  }

  template <int count>
  static void attend(const AttentionCall& call) {
    const Span span = spanOf(call);
    Query queries[count];
    for (int r = 0; r < count; r++) prepare(call, r, queries[r]);
    scoreSpan<Int8, count>(call, span, queries);
    const int64_t stride = call.layout->valueStride;
    for (int r = 0; r < count; r++) {
      float* scores = call.scores + r * call.scoreStride;
      float* out = call.outs[r] + stride;
      weigh(scores, span, call.starts[r], call.lengths[r], out, out + 1);
      roundWeights(call, span, r, scores);
    }
    int64_t dimension = 0;
    constexpr int lanes = valueLanesFor(count);
    for (; dimension + 16 * lanes <= stride; dimension += 16 * lanes) addSpan<count, lanes>(call, span, dimension);
    for (; dimension < stride; dimension += 16) addSpan<count, 1>(call, span, dimension);
  }
};

}  // namespace
