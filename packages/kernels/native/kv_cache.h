// The paged KV cache, float32. A block of one layer and KV head lies in one piece:
//   K [tiles of 16 tokens][headSize][16]  so that scores of 16 tokens are computed in lanes, without sums across them
//   V [blockSize][valueSize padded to 16]
// Made by createKvCache, written and read by step.cc.
#pragma once
#include <cstdint>

#include "model.h"
#include "native_fault.h"

namespace variator {

class KvCache {
 public:
  KvCache(const ModelShape& shape, int64_t blockCount, int64_t blockSize)
      : layerCount(shape.layerCount),
        kvHeadCount(shape.kvHeadCount),
        headSize(shape.headSize),
        valueSize(shape.valueHeadSize()),
        blockCount(blockCount),
        blockSize(blockSize),
        valueStride((shape.valueHeadSize() + 15) / 16 * 16),
        valueOffset((blockSize + 15) / 16 * 16 * shape.headSize),
        headBlockSize(valueOffset + blockSize * valueStride),
        arena_(byteLength(), "KV cache") {}

  // The blocks of one layer and KV head; block b begins b * blockStride() further on.
  float* blocks(int64_t layer, int64_t kvHead) const {
    return reinterpret_cast<float*>(arena_.data()) + (layer * blockCount * kvHeadCount + kvHead) * headBlockSize;
  }
  int64_t blockStride() const { return kvHeadCount * headBlockSize; }

  void write(int64_t layer, int64_t kvHead, int64_t block, int64_t slot, const float* key, const float* value) const {
    float* start = blocks(layer, kvHead) + block * blockStride();
    float* tile = start + slot / 16 * 16 * headSize + slot % 16;
    float* row = start + valueOffset + slot * valueStride;
    for (int64_t d = 0; d < headSize; d++) tile[d * 16] = key[d];
    for (int64_t d = 0; d < valueSize; d++) row[d] = value[d];
  }

  const int64_t layerCount, kvHeadCount, headSize, valueSize, blockCount, blockSize;
  const int64_t valueStride, valueOffset, headBlockSize;

 private:
  int64_t byteLength() const {
    int64_t bytes = 0;
    if (__builtin_mul_overflow(blockCount, layerCount * kvHeadCount * headBlockSize * 4, &bytes) || bytes > int64_t{1} << 46) {
      throw NativeFault("blockCount: the KV cache would be larger than any memory");
    }
    return bytes;
  }
  Arena arena_;
};

}  // namespace variator
