// attention.int8 in portable C++ (attention_int8.h), and how rows enter and leave an int8 cache. Compiled once a tier.
#include "attention_int8.h"

namespace variator {
namespace VARIATOR_TIER {
namespace {

// Codes of a row of one head, each nearest(x / scale); returns the scale.
float encode(const float* row, int64_t size, int8_t* codes) {
  float most = 0;
  for (int64_t d = 0; d < size; d++) {
    const float value = row[d] < 0 ? -row[d] : row[d];
    most = value > most ? value : most;
  }
  const float inverse = most > 0 ? 127.0f / most : 0.0f;
  for (int64_t d = 0; d < size; d++) {
    codes[d] = static_cast<int8_t>(static_cast<int32_t>((row[d] * inverse + 12582912.0f) - 12582912.0f));
  }
  return most / 127.0f;
}

int64_t keyPlace(const KvLayout& layout, int64_t slot, int64_t d) {
  const int64_t padded = (layout.headSize + 3) / 4 * 4;
  return layout.keyOffset + slot / 16 * 16 * padded + d / 4 * 64 + slot % 16 * 4 + d % 4;
}

int64_t valuePlace(const KvLayout& layout, int64_t slot, int64_t d) {
  return slot / 4 * 4 * layout.valueStride + 4 * d + slot % 4;
}

float* scalesAt(uint8_t* headBlock, int64_t offset) { return reinterpret_cast<float*>(headBlock + offset); }

void write(const KvLayout& layout, uint8_t* headBlock, int64_t slot, const float* key, const float* value) {
  int8_t codes[mostHeadSize];
  scalesAt(headBlock, layout.keyScaleOffset)[slot] = encode(key, layout.headSize, codes);
  for (int64_t d = 0; d < layout.headSize; d++) headBlock[keyPlace(layout, slot, d)] = static_cast<uint8_t>(codes[d] + 128);
  uint8_t* values = headBlock + layout.valueOffset;
  scalesAt(headBlock, layout.valueScaleOffset)[slot] = encode(value, layout.valueSize, codes);
  for (int64_t d = 0; d < layout.valueSize; d++) values[valuePlace(layout, slot, d)] = static_cast<uint8_t>(codes[d]);
}

void read(const KvLayout& layout, const uint8_t* headBlock, int64_t slot, float* key, float* value) {
  const float keyScale = reinterpret_cast<const float*>(headBlock + layout.keyScaleOffset)[slot];
  const float valueScale = reinterpret_cast<const float*>(headBlock + layout.valueScaleOffset)[slot];
  const uint8_t* values = headBlock + layout.valueOffset;
  for (int64_t d = 0; d < layout.headSize; d++) key[d] = keyScale * (static_cast<float>(headBlock[keyPlace(layout, slot, d)]) - 128.0f);
  for (int64_t d = 0; d < layout.valueSize; d++) value[d] = valueScale * static_cast<float>(static_cast<int8_t>(values[valuePlace(layout, slot, d)]));
}

}  // namespace

extern const AttendSplit attendInt8 = attendSplitOf<Int8>;
extern const KvOps kvOpsInt8{write, read};

}  // namespace VARIATOR_TIER
}  // namespace variator
