// attention.float32: a float32 KV cache, fused multiply-adds. Also how rows enter and leave it, and the merging of splits,
// which all formats share. Compiled once a tier.
#include "attention_splits.h"

namespace variator {
namespace VARIATOR_TIER {
namespace {

struct Float32 {
  struct Query {
    const float* values;
  };
  static void prepare(const AttentionCall& call, int pair, Query& query) { query.values = call.queries[pair]; }

  template <int first, int count, int all>
  VARIATOR_INLINE void scoreTile(const AttentionCall& call, const Query (&queries)[all], const uint8_t* headBlock,
                                 int64_t t, float* scores) {
    const int64_t headSize = call.layout->headSize;
    const float* keys = reinterpret_cast<const float*>(headBlock) + t * headSize;
    Wide even[count], odd[count];
#pragma GCC unroll 6
    for (int r = 0; r < count; r++) even[r] = odd[r] = noSum();
    for (int64_t d = 0; d < headSize; d += 2) {
      const Wide one = wideAt(keys + d * 16), other = wideAt(keys + d * 16 + 16);
#pragma GCC unroll 6
      for (int r = 0; r < count; r++) {
        even[r] = multiplyAdd(one, queries[first + r].values[d], even[r]);
        odd[r] = multiplyAdd(other, queries[first + r].values[d + 1], odd[r]);
      }
    }
#pragma GCC unroll 6
    for (int r = 0; r < count; r++) store(scores + (first + r) * call.scoreStride, scaledSum(even[r], odd[r], call.scale));
  }

  template <int count>
  static void attend(const AttentionCall& call) {
    attendPairs<Float32, count>(call);
  }

  template <int count, int lanes>
  VARIATOR_INLINE void addValues(const AttentionCall& call, const uint8_t* headBlock, int64_t from, int64_t to,
                                 int64_t dimension, const float* weights, Wide (&sums)[count][lanes]) {
    const int64_t stride = call.layout->valueStride;
    const float* values = reinterpret_cast<const float*>(headBlock + call.layout->valueOffset) + dimension;
    for (int64_t t = from; t < to; t++) {
#pragma GCC unroll 4
      for (int v = 0; v < lanes; v++) {
        const Wide value = wideAt(values + t * stride + 16 * v);
#pragma GCC unroll 6
        for (int r = 0; r < count; r++) sums[r][v] = multiplyAdd(value, weights[r * call.scoreStride + t], sums[r][v]);
      }
    }
  }
};

void write(const KvLayout& layout, uint8_t* headBlock, int64_t slot, const float* key, const float* value) {
  float* tile = reinterpret_cast<float*>(headBlock) + slot / 16 * 16 * layout.headSize + slot % 16;
  float* row = reinterpret_cast<float*>(headBlock + layout.valueOffset) + slot * layout.valueStride;
  for (int64_t d = 0; d < layout.headSize; d++) tile[d * 16] = key[d];
  for (int64_t d = 0; d < layout.valueSize; d++) row[d] = value[d];
}

void read(const KvLayout& layout, const uint8_t* headBlock, int64_t slot, float* key, float* value) {
  const float* tile = reinterpret_cast<const float*>(headBlock) + slot / 16 * 16 * layout.headSize + slot % 16;
  const float* row = reinterpret_cast<const float*>(headBlock + layout.valueOffset) + slot * layout.valueStride;
  for (int64_t d = 0; d < layout.headSize; d++) key[d] = tile[d * 16];
  for (int64_t d = 0; d < layout.valueSize; d++) value[d] = row[d];
}

}  // namespace

extern const AttendSplit attendFloat32 = attendSplitOf<Float32>;
extern const KvOps kvOpsFloat32{write, read};

}  // namespace VARIATOR_TIER
}  // namespace variator
