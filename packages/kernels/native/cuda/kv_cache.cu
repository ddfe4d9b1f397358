// See kv_cache.h. Blocks are converted into a scratch and copied from there to where they belong: towards smaller blocks the
// first come first, towards larger ones the last, so that none is written over before it was read.
#include "kv_cache.h"

#include <algorithm>

#include "../native_fault.h"
#include "block_sums.cuh"
#include "quantised_words.cuh"

namespace variator::cuda {
namespace {

constexpr int copyThreads = 128, mostPerLane = 4;  // of 128 dimensions
constexpr float mostE4m3 = 448;

struct ConvertArguments {
  uint8_t* region;
  uint8_t* scratch;  // [count] blocks in the new format
  const int32_t* blockIds;
  int32_t count, kvHeadCount, headSize;
  int32_t isValues;
};

DEVICE int32_t placeOf(const ConvertArguments& a, int32_t dimension) { return a.isValues != 0 ? fp8ValuePlace(dimension) : fp8KeyPlace(dimension); }

// A warp a row of one token and KV head: blockIndex().y.
KERNEL(32) void toFp8(const ConvertArguments a) {
  const int64_t rows = int64_t{a.kvHeadCount} * kvBlockTokens, row = blockIndex().y;
  const Bf16* from = reinterpret_cast<const Bf16*>(a.region) + (a.blockIds[blockIndex().x] * rows + row) * a.headSize;
  uint8_t* block = a.scratch + blockIndex().x * fp8KvBlockBytes(a.kvHeadCount, a.headSize);
  float values[mostPerLane];
  float most = 0;
#pragma unroll
  for (int i = 0; i < mostPerLane; i++) {
    const int32_t dimension = static_cast<int32_t>(lane()) + 32 * i;
    values[i] = dimension < a.headSize ? toFloat(from[dimension]) : 0.0f;
    most = fabsf(values[i]) > most ? fabsf(values[i]) : most;
  }
  most = warpMost(most);
  const float scale = most > 0 ? most / mostE4m3 : 1.0f;
#pragma unroll
  for (int i = 0; i < mostPerLane; i++) {
    const int32_t dimension = static_cast<int32_t>(lane()) + 32 * i;
    if (dimension < a.headSize) block[row * a.headSize + placeOf(a, dimension)] = static_cast<uint8_t>(e4m3OfTwo(values[i] / scale, 0.0f));
  }
  if (lane() == 0) reinterpret_cast<float*>(block + rows * a.headSize)[row] = scale;
}

KERNEL(32) void toBf16Rows(const ConvertArguments a) {
  const int64_t rows = int64_t{a.kvHeadCount} * kvBlockTokens, row = blockIndex().y;
  const uint8_t* block = a.region + a.blockIds[blockIndex().x] * fp8KvBlockBytes(a.kvHeadCount, a.headSize);
  Bf16* to = reinterpret_cast<Bf16*>(a.scratch) + (blockIndex().x * rows + row) * a.headSize;
  const float scale = reinterpret_cast<const float*>(block + rows * a.headSize)[row];
  for (int32_t dimension = static_cast<int32_t>(lane()); dimension < a.headSize; dimension += 32) {
    const float value = lowOf(bf16OfE4m3(block[row * a.headSize + placeOf(a, dimension)], lowTwo));
    to[dimension] = toBf16(multiplyRounded(value, scale));
  }
}

struct ScatterArguments {
  const uint8_t* scratch;
  uint8_t* region;
  const int32_t* blockIds;
  int64_t blockBytes;  // a multiple of 16
};

KERNEL(copyThreads) void scatterBlocks(const ScatterArguments a) {
  const int64_t at = 16 * (int64_t{blockIndex().y} * copyThreads + thread());
  if (at < a.blockBytes) store16(a.region + a.blockIds[blockIndex().x] * a.blockBytes + at, load16(a.scratch + blockIndex().x * a.blockBytes + at));
}

}  // namespace

KvFormat kvFormatOf(const std::string& name) {
  if (name == "bf16") return KvFormat::Bf16;
  if (name == "fp8") return KvFormat::Fp8;
  throw NativeFault("kvFormat: the CUDA kernels read bf16 and fp8, not " + name);
}

const char* nameOf(KvFormat format) { return format == KvFormat::Fp8 ? "fp8" : "bf16"; }

KvCache::KvCache(const DeviceModel& model, int32_t blockCount, KvFormat format)
    : layerCount_(model.layerCount),
      kvHeadCount_(model.kvHeadCount),
      headSize_(model.headSize),
      format_(format),
      regionBytes_(ceilDivide(blockCount * regionBlockBytes(format), 256) * 256),
      data_(2 * layerCount_ * regionBytes_) {}

int64_t KvCache::regionBlockBytes(KvFormat format) const {
  return format == KvFormat::Fp8 ? fp8KvBlockBytes(kvHeadCount_, headSize_) : int64_t{2} * kvHeadCount_ * kvBlockTokens * headSize_;
}

KvLayer KvCache::layer(int32_t index, KvFormat format) const {
  uint8_t* keys = data_.data() + 2 * index * regionBytes_;
  uint8_t* values = keys + regionBytes_;
  if (format == KvFormat::Fp8) return {nullptr, nullptr, keys, values};
  return {reinterpret_cast<Bf16*>(keys), reinterpret_cast<Bf16*>(values)};
}

void KvCache::convert(KvFormat format, const std::vector<int32_t>& blockIds, Stream stream, int64_t scratchBytes) {
  for (size_t i = 0; i < blockIds.size(); i++) {
    const bool isSound = blockIds[i] >= 0 && (i == 0 || blockIds[i] > blockIds[i - 1]) && blockIds[i] < std::min(blockCount(), blockCountIn(format));
    if (!isSound) throw NativeFault("blockIds: must ascend, and be blocks of the cache before and after");
  }
  if (format == format_) return;
  const int64_t newBytes = regionBlockBytes(format);
  const bool isShrinking = newBytes < regionBlockBytes(format_);
  const auto count = static_cast<int32_t>(blockIds.size());
  if (count > 0) {
    const auto atOnce = static_cast<int32_t>(std::min<int64_t>(count, std::max<int64_t>(1, scratchBytes / newBytes)));
    const DeviceArray<int32_t> ids(count);
    const DeviceArray<uint8_t> scratch(atOnce * newBytes);
    copyToDevice(ids.data(), blockIds.data(), ids.bytes(), stream);
    for (int32_t region = 0; region < 2 * layerCount_; region++) {
      uint8_t* base = data_.data() + region * regionBytes_;
      for (int32_t done = 0; done < count; done += atOnce) {
        const int32_t part = std::min(atOnce, count - done), first = isShrinking ? done : count - done - part;
        const ConvertArguments arguments{base, scratch.data(), ids.data() + first, part, kvHeadCount_, headSize_, region % 2};
        const LaunchShape shape{{static_cast<uint32_t>(part), static_cast<uint32_t>(kvHeadCount_ * kvBlockTokens)}, {32}};
        if (format == KvFormat::Fp8) launch("convertKvCache", toFp8, shape, stream, arguments);
        else launch("convertKvCache", toBf16Rows, shape, stream, arguments);
        launch("convertKvCache", scatterBlocks, {{static_cast<uint32_t>(part), static_cast<uint32_t>(ceilDivide(newBytes, 16 * copyThreads))}, {copyThreads}}, stream,
               ScatterArguments{scratch.data(), base, ids.data() + first, newBytes});
      }
    }
    wait(stream);
  }
  format_ = format;
}

}  // namespace variator::cuda
