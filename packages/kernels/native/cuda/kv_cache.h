// The paged KV cache of one model on the device: blocks of 16 tokens, of each layer a region of keys and one of values, both of
// fixed size. It may change its format between two steps: blocks keep their ids and, rounded, their contents; a region then
// holds more or fewer of them. Owned by variator_cuda.cc; written and read by the engine's kernels.
#pragma once
#include <string>
#include <vector>

#include "device_model.h"
#include "elementwise.h"

namespace variator::cuda {

enum class KvFormat : int32_t { Bf16 = VARIATOR_CUDA_KV_BF16, Fp8 = VARIATOR_CUDA_KV_FP8 };
// Throws NativeFault for names other than bf16 and fp8.
KvFormat kvFormatOf(const std::string& name);
const char* nameOf(KvFormat format);

class KvCache {
 public:
  KvCache(const DeviceModel& model, int32_t blockCount, KvFormat format);

  KvFormat format() const { return format_; }
  int32_t blockCount() const { return blockCountIn(format_); }
  int32_t blockCountIn(KvFormat format) const { return static_cast<int32_t>(regionBytes_ / regionBlockBytes(format)); }
  // Keys and values of all layers.
  int64_t blockBytes() const { return 2 * int64_t{layerCount_} * regionBlockBytes(format_); }
  // As kernels see it that take the cache for one of this format: graphs are captured before it is.
  KvLayer layer(int32_t index, KvFormat format) const;
  // Of the blocks in `blockIds` (ascending, all below blockCountIn(format)) what was stored stays, rounded; everything else is
  // lost. Waits for the stream. scratchBytes: most that is converted at once.
  void convert(KvFormat format, const std::vector<int32_t>& blockIds, Stream stream, int64_t scratchBytes = int64_t{32} << 20);

 private:
  int64_t regionBlockBytes(KvFormat format) const;

  int32_t layerCount_, kvHeadCount_, headSize_;
  KvFormat format_;
  int64_t regionBytes_;  // a multiple of 256
  DeviceArray<uint8_t> data_;
};

}  // namespace variator::cuda
