// Layouts of the KV cache, and the change from one format to another in place. Called by addon.cc and engine.cc.
#include "kv_cache.h"

#include <algorithm>
#include <cstring>

#include "float_ops.h"
#include "native_fault.h"

namespace variator {
namespace {

int64_t upTo(int64_t count, int64_t multiple) { return (count + multiple - 1) / multiple * multiple; }

int64_t regionBytesOf(const ModelShape& shape, const KvLayout& layout, int64_t blockCount) {
  int64_t bytes = 0;
  if (__builtin_mul_overflow(blockCount, shape.cachedHeadCount() * layout.headBlockBytes, &bytes) ||
      bytes > (int64_t{1} << 46) / shape.layerCount) {
    throw NativeFault("blockCount: the KV cache would be larger than any memory");
  }
  return bytes;
}

}  // namespace

KvLayout kvLayoutOf(KvFormat format, int64_t headSize, int64_t valueSize, int64_t blockSize) {
  const int64_t tiles = upTo(blockSize, 16), stride = upTo(valueSize, 16);
  KvLayout layout;
  layout.format = format;
  layout.headSize = headSize;
  layout.valueSize = valueSize;
  layout.blockSize = blockSize;
  layout.valueStride = stride;
  switch (format) {
    case KvFormat::Float32:
      layout.valueOffset = tiles * headSize * 4;
      layout.headBlockBytes = layout.valueOffset + blockSize * stride * 4;
      break;
    case KvFormat::Bf16:
      layout.valueOffset = tiles * headSize * 2;
      layout.headBlockBytes = layout.valueOffset + upTo(blockSize, 2) * stride * 2;
      break;
    case KvFormat::Int8:
      layout.valueScaleOffset = tiles * 4;
      layout.keyOffset = 2 * tiles * 4;
      layout.valueOffset = layout.keyOffset + tiles * upTo(headSize, 4);
      layout.headBlockBytes = layout.valueOffset + upTo(blockSize, 4) * stride;
      break;
  }
  // No head's block shares a cache line with another's.
  layout.headBlockBytes = upTo(layout.headBlockBytes, 64);
  return layout;
}

KvFormat parseKvFormat(const std::string& name) {
  if (name == "float32") return KvFormat::Float32;
  if (name == "bf16") return KvFormat::Bf16;
  if (name == "int8") return KvFormat::Int8;
  throw NativeFault("kvFormat: " + name + " is not one of float32, bf16, int8");
}

KvCache::KvCache(const ModelShape& shape, int64_t blockCount, int64_t blockSize, KvFormat format)
    : layerCount(shape.layerCount),
      kvHeadCount(shape.cachedHeadCount()),
      headSize(shape.cachedKeySize()),
      valueSize(shape.cachedValueSize()),
      blockSize(blockSize),
      layout_(kvLayoutOf(format, shape.cachedKeySize(), shape.cachedValueSize(), blockSize)),
      regionBytes_(regionBytesOf(shape, layout_, blockCount)),
      arena_(regionBytes_ * shape.layerCount, "KV cache") {}

int64_t KvCache::blockCountIn(KvFormat format) const {
  return regionBytes_ / (kvHeadCount * kvLayoutOf(format, headSize, valueSize, blockSize).headBlockBytes);
}

void KvCache::convert(KvFormat format, const std::vector<int32_t>& blockIds, ThreadTeam& team) {
  if (format == layout_.format) return;
  const KvLayout to = kvLayoutOf(format, headSize, valueSize, blockSize);
  const int threadCount = static_cast<int>(std::min<int64_t>(team.threadCount(), layerCount));
  team.run(threadCount, [&](int thread) {
    std::vector<uint8_t> from(static_cast<size_t>(blockBytes()));
    std::vector<float> rows(static_cast<size_t>(headSize + valueSize));
    for (int64_t layer = thread; layer < layerCount; layer += threadCount) convertRegion(layer, to, blockIds, from, rows);
  });
  layout_ = to;
}

// Towards smaller blocks the first come first, towards larger ones the last: so none is written over before it was read.
void KvCache::convertRegion(int64_t layer, const KvLayout& to, const std::vector<int32_t>& blockIds,
                            std::vector<uint8_t>& from, std::vector<float>& rows) const {
  const KvOps &reading = kvOps(layout_.format), &writing = kvOps(to.format);
  uint8_t* region = blocks(layer, 0);
  const bool isShrinking = to.headBlockBytes < layout_.headBlockBytes;
  float* key = rows.data();
  float* value = key + headSize;
  for (size_t i = 0; i < blockIds.size(); i++) {
    const int64_t block = blockIds[isShrinking ? i : blockIds.size() - 1 - i];
    std::memcpy(from.data(), region + block * blockBytes(), from.size());
    uint8_t* out = region + block * kvHeadCount * to.headBlockBytes;
    // What is behind the last token of a block is read in lanes, and must be numbers in every format.
    std::memset(out, 0, static_cast<size_t>(kvHeadCount * to.headBlockBytes));
    for (int64_t head = 0; head < kvHeadCount; head++) {
      for (int64_t slot = 0; slot < blockSize; slot++) {
        reading.read(layout_, from.data() + head * layout_.headBlockBytes, slot, key, value);
        writing.write(to, out + head * to.headBlockBytes, slot, key, value);
      }
    }
  }
}

}  // namespace variator
