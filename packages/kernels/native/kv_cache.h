// The paged KV cache. A block of one layer and KV head lies in one piece of `headBlockBytes`; its layout by format:
//   Float32  K [tiles of 16 tokens][headSize][16] f32          V [blockSize][valueSize padded to 16] f32
//   Bf16     K [tiles of 16 tokens][headSize / 2][16][2] bf16  V [pairs of tokens][valueSize padded to 16][2] bf16
//   Int8     scales of K [tiles of 16 tokens][16] f32, scales of V the same,
//            K [tiles of 16 tokens][headSize padded to 4, / 4][16][4] u8 = code + 128, V [fours of tokens][padded to 16][4] int8
// so that scores of 16 tokens are computed in lanes, without sums across them. An int8 row of one head has one scale, its
// largest value / 127. Made by createKvCache; written and read by the attention units, which know the layouts.
//
// Every layer has a region of fixed size. A cache may change its format between two steps (`convert`): blocks keep their
// ids and, rounded, their contents; the region then holds more or fewer of them.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "model.h"
#include "thread_team.h"

namespace variator {

enum class KvFormat { Float32, Bf16, Int8 };

// Where things lie in a block of one layer and KV head, in bytes.
struct KvLayout {
  KvFormat format = KvFormat::Float32;
  int64_t headSize = 0, valueSize = 0, blockSize = 0;
  int64_t valueStride = 0;  // elements of a token's row of V: valueSize padded to 16
  int64_t keyOffset = 0, keyScaleOffset = 0, valueScaleOffset = 0, valueOffset = 0;
  int64_t headBlockBytes = 0;
};

KvLayout kvLayoutOf(KvFormat format, int64_t headSize, int64_t valueSize, int64_t blockSize);
// Throws NativeFault for an unknown name: float32, bf16, int8.
KvFormat parseKvFormat(const std::string& name);

class KvCache {
 public:
  // Room for `blockCount` blocks of this format. Throws NativeFault where memory is not to be had.
  KvCache(const ModelShape& shape, int64_t blockCount, int64_t blockSize, KvFormat format);

  KvFormat format() const { return layout_.format; }
  const KvLayout& layout() const { return layout_; }
  int64_t blockCount() const { return regionBytes_ / blockBytes(); }
  // Bytes from one block to the next.
  int64_t blockBytes() const { return kvHeadCount * layout_.headBlockBytes; }
  // The blocks of one layer and KV head; block b begins b * blockBytes() further on.
  uint8_t* blocks(int64_t layer, int64_t kvHead) const {
    return arena_.data() + layer * regionBytes_ + kvHead * layout_.headBlockBytes;
  }

  // Changes the format. Of the blocks in `blockIds` (ascending, all below the new blockCount) what was stored stays,
  // rounded to the new format; everything else is lost. Not while a step runs.
  void convert(KvFormat format, const std::vector<int32_t>& blockIds, ThreadTeam& team);
  int64_t blockCountIn(KvFormat format) const;

  const int64_t layerCount, kvHeadCount, headSize, valueSize, blockSize;

 private:
  void convertRegion(int64_t layer, const KvLayout& to, const std::vector<int32_t>& blockIds, std::vector<uint8_t>& from,
                     std::vector<float>& rows) const;
  KvLayout layout_;
  int64_t regionBytes_;  // of a layer
  Arena arena_;
};

}  // namespace variator
