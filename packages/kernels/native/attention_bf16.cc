// attention.bf16: keys and values rounded to bf16, everything computed in float32 with fused multiply-adds. A load of 64
// bytes holds 16 tokens' (or dimensions') pairs; the two of a pair are the halves of a 32-bit word. Compiled once a tier.
#include "attention_splits.h"

namespace variator {
namespace VARIATOR_TIER {
namespace {

struct Bf16 {
  struct Query {
    const float* values;
  };
  static void prepare(const AttentionCall& call, int pair, Query& query) { query.values = call.queries[pair]; }

  template <int first, int count, int all>
  VARIATOR_INLINE void scoreTile(const AttentionCall& call, const Query (&queries)[all], const uint8_t* headBlock,
                                 int64_t t, float* scores) {
    const int64_t headSize = call.layout->headSize;
    const uint16_t* keys = reinterpret_cast<const uint16_t*>(headBlock) + t * headSize;
    Wide even[count], odd[count];
#pragma GCC unroll 6
    for (int r = 0; r < count; r++) even[r] = odd[r] = noSum();
    for (int64_t d = 0; d < headSize; d += 2) {
      Wide lower, upper;
      bf16PairsAt(keys + d * 16, &lower, &upper);
#pragma GCC unroll 6
      for (int r = 0; r < count; r++) {
        even[r] = multiplyAdd(lower, queries[first + r].values[d], even[r]);
        odd[r] = multiplyAdd(upper, queries[first + r].values[d + 1], odd[r]);
      }
    }
#pragma GCC unroll 6
    for (int r = 0; r < count; r++) store(scores + (first + r) * call.scoreStride, scaledSum(even[r], odd[r], call.scale));
  }

  template <int count>
  static void attend(const AttentionCall& call) {
    attendPairs<Bf16, count>(call);
  }

  template <int count, int lanes>
  VARIATOR_INLINE void addValues(const AttentionCall& call, const uint8_t* headBlock, int64_t from, int64_t to,
                                 int64_t dimension, const float* weights, Wide (&sums)[count][lanes]) {
    const int64_t stride = call.layout->valueStride;
    const uint16_t* values = reinterpret_cast<const uint16_t*>(headBlock + call.layout->valueOffset) + 2 * dimension;
    // A pair of tokens of which only one takes part is added by itself; the order of the sum is the same.
    const auto addOne = [&](int64_t t) __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int v = 0; v < lanes; v++) {
        Wide lower, upper;
        bf16PairsAt(values + t / 2 * 2 * stride + 32 * v, &lower, &upper);
        const Wide one = t % 2 == 0 ? lower : upper;
#pragma GCC unroll 6
        for (int r = 0; r < count; r++) sums[r][v] = multiplyAdd(one, weights[r * call.scoreStride + t], sums[r][v]);
      }
    };
    int64_t t = from;
    if (t % 2 == 1 && t < to) addOne(t++);
    for (; t + 2 <= to; t += 2) {
#pragma GCC unroll 4
      for (int v = 0; v < lanes; v++) {
        Wide lower, upper;
        bf16PairsAt(values + t * stride + 32 * v, &lower, &upper);
#pragma GCC unroll 6
        for (int r = 0; r < count; r++) {
          const float* weight = weights + r * call.scoreStride + t;
          sums[r][v] = multiplyAdd(lower, weight[0], sums[r][v]);
          sums[r][v] = multiplyAdd(upper, weight[1], sums[r][v]);
        }
      }
    }
    if (t < to) addOne(t);
  }
};

// To nearest, ties to even; finite numbers stay finite up to bf16's largest.
uint16_t bf16From(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

float floatFrom(uint16_t bf16) {
  const uint32_t bits = static_cast<uint32_t>(bf16) << 16;
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

int64_t keyPlace(const KvLayout& layout, int64_t slot, int64_t d) {
  return slot / 16 * 16 * layout.headSize + d / 2 * 32 + slot % 16 * 2 + d % 2;
}

int64_t valuePlace(const KvLayout& layout, int64_t slot, int64_t d) {
  return slot / 2 * 2 * layout.valueStride + 2 * d + slot % 2;
}

void write(const KvLayout& layout, uint8_t* headBlock, int64_t slot, const float* key, const float* value) {
  uint16_t* keys = reinterpret_cast<uint16_t*>(headBlock);
  uint16_t* values = reinterpret_cast<uint16_t*>(headBlock + layout.valueOffset);
  for (int64_t d = 0; d < layout.headSize; d++) keys[keyPlace(layout, slot, d)] = bf16From(key[d]);
  for (int64_t d = 0; d < layout.valueSize; d++) values[valuePlace(layout, slot, d)] = bf16From(value[d]);
}

void read(const KvLayout& layout, const uint8_t* headBlock, int64_t slot, float* key, float* value) {
  const uint16_t* keys = reinterpret_cast<const uint16_t*>(headBlock);
  const uint16_t* values = reinterpret_cast<const uint16_t*>(headBlock + layout.valueOffset);
  for (int64_t d = 0; d < layout.headSize; d++) key[d] = floatFrom(keys[keyPlace(layout, slot, d)]);
  for (int64_t d = 0; d < layout.valueSize; d++) value[d] = floatFrom(values[valuePlace(layout, slot, d)]);
}

}  // namespace

extern const AttendSplit attendBf16 = attendSplitOf<Bf16>;
extern const KvOps kvOpsBf16{write, read};

}  // namespace VARIATOR_TIER
}  // namespace variator
