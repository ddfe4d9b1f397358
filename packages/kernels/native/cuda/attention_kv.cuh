// The formats of keys and values that attention.cuh reads. Codes of e4m3 become bf16 in registers, which holds each of them.
#pragma once
#include "attention.h"
#include "quantised_words.cuh"

namespace variator::cuda {

namespace attention {

// What a format says: where a token's keys and values of one KV head lie, and how 16 tokens of them become fragments.
// `raw` is what was loaded last: codes come two steps at a time.
struct Bf16Kv {
  static constexpr int elementBytes = 2, scaleBytes = 0;
  DEVICE static int64_t at(const AttentionArguments& a, int64_t block, int32_t kvHead, int32_t place) {
    return ((block * a.kvHeadCount + kvHead) * kvBlockTokens + place) * a.headSize * 2;
  }
  DEVICE static const uint8_t* keys(const AttentionArguments& a) { return reinterpret_cast<const uint8_t*>(a.kv.keys); }
  DEVICE static const uint8_t* values(const AttentionArguments& a) { return reinterpret_cast<const uint8_t*>(a.kv.values); }
  // Dimensions 16 k of 16 tokens: of the first eight, of the others.
  template <int headSize>
  DEVICE static void keyFragments(uint32_t (&first)[2], uint32_t (&second)[2], uint32_t (&raw)[4], const uint8_t* rows, int rowBytes, int k) {
    loadMatrix4(raw, rows + (static_cast<int>(lane()) / 16 * 8 + static_cast<int>(lane()) % 8) * rowBytes + (2 * k + static_cast<int>(lane()) / 8 % 2) * 16);
    first[0] = raw[0];
    first[1] = raw[1];
    second[0] = raw[2];
    second[1] = raw[3];
  }
  // 16 tokens of dimensions 16 k: of the first eight, of the others.
  template <int headSize>
  DEVICE static void valueFragments(uint32_t (&first)[2], uint32_t (&second)[2], uint32_t (&raw)[4], const uint8_t* rows, int rowBytes, int k) {
    loadMatrix4Transposed(raw, rows + static_cast<int>(lane()) % 16 * rowBytes + (2 * k + static_cast<int>(lane()) / 16) * 16);
    first[0] = raw[0];
    first[1] = raw[1];
    second[0] = raw[2];
    second[1] = raw[3];
  }
};

// Rows of one token and KV head in e4m3, laid out by elementwise.h so that ldmatrix gives a lane what its fragments hold.
struct Fp8Kv {
  static constexpr int elementBytes = 1, scaleBytes = 4;
  DEVICE static int64_t at(const AttentionArguments& a, int64_t block, int32_t kvHead, int32_t place) {
    return block * fp8KvBlockBytes(a.kvHeadCount, a.headSize) + static_cast<int64_t>(kvHead * kvBlockTokens + place) * a.headSize;
  }
  DEVICE static int64_t scaleAt(const AttentionArguments& a, int64_t block, int32_t kvHead, int32_t place) {
    return block * fp8KvBlockBytes(a.kvHeadCount, a.headSize) + static_cast<int64_t>(a.kvHeadCount) * kvBlockTokens * a.headSize + (kvHead * kvBlockTokens + place) * 4;
  }
  DEVICE static const uint8_t* keys(const AttentionArguments& a) { return a.kv.fp8Keys; }
  DEVICE static const uint8_t* values(const AttentionArguments& a) { return a.kv.fp8Values; }
  template <int headSize>
  DEVICE static void keyFragments(uint32_t (&first)[2], uint32_t (&second)[2], uint32_t (&raw)[4], const uint8_t* rows, int rowBytes, int k) {
    if (k % 2 == 0) loadCodes<headSize, false>(raw, rows, rowBytes, k);
    const int of = k % 2 * 2;
    first[0] = bf16OfE4m3(raw[of], lowTwo);
    first[1] = bf16OfE4m3(raw[of], highTwo);
    second[0] = bf16OfE4m3(raw[of + 1], lowTwo);
    second[1] = bf16OfE4m3(raw[of + 1], highTwo);
  }
  // A transposed 16-bit element is two dimensions, d and d + 8, of one token.
  template <int headSize>
  DEVICE static void valueFragments(uint32_t (&first)[2], uint32_t (&second)[2], uint32_t (&raw)[4], const uint8_t* rows, int rowBytes, int k) {
    if (k % 2 == 0) loadCodes<headSize, true>(raw, rows, rowBytes, k);
    const int of = k % 2 * 2;
    first[0] = bf16OfE4m3(raw[of], evenTwo);
    first[1] = bf16OfE4m3(raw[of + 1], evenTwo);
    second[0] = bf16OfE4m3(raw[of], oddTwo);
    second[1] = bf16OfE4m3(raw[of + 1], oddTwo);
  }

 private:
  // 16 bytes of 16 tokens, and the next 16 bytes where there are any.
  template <int headSize, bool isTransposed>
  DEVICE static void loadCodes(uint32_t (&raw)[4], const uint8_t* rows, int rowBytes, int k) {
    if constexpr (headSize == 16) {
      uint32_t two[2];
      const uint8_t* row = rows + static_cast<int>(lane()) % 16 * rowBytes;
      if constexpr (isTransposed) loadMatrix2Transposed(two, row);
      else loadMatrix2(two, row);
      raw[0] = two[0];
      raw[1] = two[1];
    } else {
      const uint8_t* row = rows + static_cast<int>(lane()) % 16 * rowBytes + (k + static_cast<int>(lane()) / 16) * 16;
      if constexpr (isTransposed) loadMatrix4Transposed(raw, row);
      else loadMatrix4(raw, row);
    }
  }
};

}  // namespace attention
}  // namespace variator::cuda
