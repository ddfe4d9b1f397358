// Integer panels for x86-64 without VNNI: compiled for AVX2 and for AVX-512. Each register of codes is taken apart into two parts,
// once for all rows of a slab: int4 into nibbles, of which 16 products of at most 15 * 127 stay below 2^15 as vpmaddubsw
// sums them; int8 into 16-bit words for vpmaddwd, since two products of bytes may saturate vpmaddubsw. So either takes a
// multiplication and an addition a part and row, as many as the machine has units for, and a group's dot is exact. 1 to 4
// activation rows at once; the sums stay in `out`, which the nearest cache keeps. Called by step.cc, only where CPUID shows the tier.
#include <immintrin.h>

#include "panels.h"

namespace variator {
namespace VARIATOR_TIER {
namespace {

#define VARIATOR_INLINE static inline __attribute__((always_inline))
// VARIATOR_KEEP: a sum as it is. Compilers would make trees of many sums, whose leaves they keep in memory.
#if defined(__AVX512BW__)
typedef __m512i Codes;
typedef __m512 Floats;
constexpr int lanes = 16, dotsInRegisters = 16;
VARIATOR_INLINE Codes codesAt(const uint8_t* from) { return _mm512_loadu_si512(from); }
VARIATOR_INLINE Codes four(int32_t bytes) { return _mm512_set1_epi32(bytes); }
VARIATOR_INLINE Codes lowNibbles(Codes codes) { return _mm512_and_si512(codes, _mm512_set1_epi8(15)); }
VARIATOR_INLINE Codes highNibbles(Codes codes) { return lowNibbles(_mm512_srli_epi16(codes, 4)); }
VARIATOR_INLINE Codes evenBytes(Codes codes) { return _mm512_and_si512(codes, _mm512_set1_epi16(255)); }
VARIATOR_INLINE Codes oddBytes(Codes codes) { return _mm512_srli_epi16(codes, 8); }
VARIATOR_INLINE Codes productsOfBytes(Codes codes, Codes others) { return _mm512_maddubs_epi16(codes, others); }
VARIATOR_INLINE Codes productsOfWords(Codes codes, Codes others) { return _mm512_madd_epi16(codes, others); }
VARIATOR_INLINE Codes addWords(Codes a, Codes b) { return _mm512_add_epi16(a, b); }
VARIATOR_INLINE Codes add(Codes a, Codes b) { return _mm512_add_epi32(a, b); }
VARIATOR_INLINE Codes addPairs(Codes words) { return _mm512_madd_epi16(words, _mm512_set1_epi16(1)); }
VARIATOR_INLINE Floats floatsOf(Codes dots) { return _mm512_cvtepi32_ps(dots); }
VARIATOR_INLINE Floats fill(float value) { return _mm512_set1_ps(value); }
VARIATOR_INLINE Floats floatsAt(const float* from) { return _mm512_loadu_ps(from); }
VARIATOR_INLINE void store(float* to, Floats value) { _mm512_storeu_ps(to, value); }
VARIATOR_INLINE Floats halvesAt(const uint8_t* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
#define VARIATOR_KEEP(sum) asm("" : "+v"(sum))
#else
typedef __m256i Codes;
typedef __m256 Floats;
constexpr int lanes = 8, dotsInRegisters = 8;
VARIATOR_INLINE Codes codesAt(const uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const Codes*>(from)); }
VARIATOR_INLINE Codes four(int32_t bytes) { return _mm256_set1_epi32(bytes); }
VARIATOR_INLINE Codes lowNibbles(Codes codes) { return _mm256_and_si256(codes, _mm256_set1_epi8(15)); }
VARIATOR_INLINE Codes highNibbles(Codes codes) { return lowNibbles(_mm256_srli_epi16(codes, 4)); }
VARIATOR_INLINE Codes evenBytes(Codes codes) { return _mm256_and_si256(codes, _mm256_set1_epi16(255)); }
VARIATOR_INLINE Codes oddBytes(Codes codes) { return _mm256_srli_epi16(codes, 8); }
VARIATOR_INLINE Codes productsOfBytes(Codes codes, Codes others) { return _mm256_maddubs_epi16(codes, others); }
VARIATOR_INLINE Codes productsOfWords(Codes codes, Codes others) { return _mm256_madd_epi16(codes, others); }
VARIATOR_INLINE Codes addWords(Codes a, Codes b) { return _mm256_add_epi16(a, b); }
VARIATOR_INLINE Codes add(Codes a, Codes b) { return _mm256_add_epi32(a, b); }
VARIATOR_INLINE Codes addPairs(Codes words) { return _mm256_madd_epi16(words, _mm256_set1_epi16(1)); }
VARIATOR_INLINE Floats floatsOf(Codes dots) { return _mm256_cvtepi32_ps(dots); }
VARIATOR_INLINE Floats fill(float value) { return _mm256_set1_ps(value); }
VARIATOR_INLINE Floats floatsAt(const float* from) { return _mm256_loadu_ps(from); }
VARIATOR_INLINE void store(float* to, Floats value) { _mm256_storeu_ps(to, value); }
VARIATOR_INLINE Floats halvesAt(const uint8_t* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
#define VARIATOR_KEEP(sum) asm("" : "+x"(sum))
#endif

constexpr int blockCount = 32 / lanes;  // registers of weight rows in a panel
constexpr int64_t mostRows = 96;        // whose codes are held at once: as many as a slab has

template <PanelFormat format>
constexpr int registersOf = isFourBit(format) ? 4 : 8;  // of codes, for a group of each block

// Part 0 of codes is columns 4k and on (int4) or the even ones (int8), part 1 columns 16 + 4k and on or the odd ones.
template <PanelFormat format>
VARIATOR_INLINE Codes partOf(Codes codes, int part) {
  if (part == 0) return isFourBit(format) ? lowNibbles(codes) : evenBytes(codes);
  return isFourBit(format) ? highNibbles(codes) : oddBytes(codes);
}

// A group of a panel as it lies there, for one or two rows.
template <PanelFormat format>
struct PackedGroup {
  const uint8_t* panel;
  inline __attribute__((always_inline)) Codes partAt(int k, int part, int b) const {
    return partOf<format>(codesAt(panel + k * 128 + b * lanes * 4), part);
  }
  inline __attribute__((always_inline)) Floats scaleAt(int b) const {
    return halvesAt(panel + scaleOffsetOf(format) + b * lanes * 2);
  }
  inline __attribute__((always_inline)) Floats minimumAt(int b) const {
    return isCentred(format) ? scaleAt(b) * fill(-centreOf(format)) : halvesAt(panel + minimumOffsetOf(format) + b * lanes * 2);
  }
};

// The same taken apart, for more.
template <PanelFormat format>
struct PartedGroup {
  Codes parts[registersOf<format>][2][blockCount];
  Floats scales[blockCount], minimums[blockCount];

  inline __attribute__((always_inline)) void read(const PackedGroup<format>& group) {
#pragma GCC unroll 8
    for (int k = 0; k < registersOf<format>; k++) {
#pragma GCC unroll 4
      for (int b = 0; b < blockCount; b++) {
        parts[k][0][b] = group.partAt(k, 0, b);
        parts[k][1][b] = group.partAt(k, 1, b);
      }
    }
#pragma GCC unroll 4
    for (int b = 0; b < blockCount; b++) {
      scales[b] = group.scaleAt(b);
      minimums[b] = group.minimumAt(b);
    }
  }
  inline __attribute__((always_inline)) Codes partAt(int k, int part, int b) const { return parts[k][part][b]; }
  inline __attribute__((always_inline)) Floats scaleAt(int b) const { return scales[b]; }
  inline __attribute__((always_inline)) Floats minimumAt(int b) const { return minimums[b]; }
};

// Activation rows at a group: `codes` what the parts are multiplied with, first those of all first parts, then of all second.
struct GroupRows {
  const uint8_t* codes;
  const float *scales, *scaledSums;
  int64_t codeBytes, groupStride;  // from one row to the next
};

// The 32 codes of a row as words: columns 0 and 2, 4 and 6 and on; then 1 and 3, 5 and 7 and on.
VARIATOR_INLINE void wordsOf(const int8_t* codes, uint8_t* words) {
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
  _mm256_store_si256(reinterpret_cast<__m256i*>(words), _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8));
  _mm256_store_si256(reinterpret_cast<__m256i*>(words + 32), _mm256_srai_epi16(bytes, 8));
}

// Adds the group's products with `rows` rows to sums [rows, 32], for `blocks` registers of weight rows from `first`.
template <PanelFormat format, int rows, int blocks, typename Group>
VARIATOR_INLINE void addBlocks(const Group* group, const GroupRows& x, int first, float* sums) {
  constexpr int registers = registersOf<format>;
  // Or compilers keep what they can of the group in registers, and the dots in memory instead.
  asm volatile("" : "+r"(group) : : "memory");
  const uint8_t* codes[rows];
#pragma GCC unroll 4
  for (int m = 0; m < rows; m++) {
    codes[m] = x.codes + m * x.codeBytes;
    asm("" : "+r"(codes[m]));  // or compilers keep the address of each product, in memory
  }
  Codes dots[rows][blocks];
#pragma GCC unroll 8
  for (int k = 0; k < registers; k++) {
#pragma GCC unroll 2
    for (int part = 0; part < 2; part++) {
      Codes weights[blocks];
#pragma GCC unroll 4
      for (int b = 0; b < blocks; b++) weights[b] = group->partAt(k, part, first + b);
#pragma GCC unroll 4
      for (int m = 0; m < rows; m++) {
        int32_t bytes;
        __builtin_memcpy(&bytes, codes[m] + (part * registers + k) * 4, 4);
        const Codes others = four(bytes);
#pragma GCC unroll 4
        for (int b = 0; b < blocks; b++) {
          const Codes products = isFourBit(format) ? productsOfBytes(weights[b], others) : productsOfWords(weights[b], others);
          if (k == 0 && part == 0) dots[m][b] = products;
          else dots[m][b] = isFourBit(format) ? addWords(dots[m][b], products) : add(dots[m][b], products);
          VARIATOR_KEEP(dots[m][b]);
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int b = 0; b < blocks; b++) {
    const Floats weightScale = group->scaleAt(first + b), minimum = group->minimumAt(first + b);
#pragma GCC unroll 4
    for (int m = 0; m < rows; m++) {
      const Floats dot = floatsOf(isFourBit(format) ? addPairs(dots[m][b]) : dots[m][b]);
      float* to = sums + m * 32 + (first + b) * lanes;
      const Floats sum = floatsAt(to) + minimum * fill(x.scaledSums[m * x.groupStride]);
      store(to, sum + dot * (weightScale * fill(x.scales[m * x.groupStride])));
    }
  }
}

// As many weight rows at once as their dots fit into the registers.
template <PanelFormat format, int rows, typename Group>
VARIATOR_INLINE void addRows(const Group& group, const GroupRows& x, float* sums) {
  constexpr int fitting = dotsInRegisters / rows;
  constexpr int blocks = fitting >= blockCount ? blockCount : fitting >= 2 ? 2 : 1;
#pragma GCC unroll 1
  for (int first = 0; first < blockCount; first += blocks) addBlocks<format, rows, blocks>(&group, x, first, sums);
}

template <PanelFormat format>
void multiplyRows(const uint8_t* panel, int64_t groupCount, const Activations& activations, int64_t rowStart,
                  int64_t rowCount, LinearTuning tuning, float* out) {
  constexpr int64_t groupBytes = groupBytesOf(format);
  const int64_t stride = activations.stride, groupStride = stride / 32;
  const int64_t most = tuning.rowsAtOnce < 4 ? tuning.rowsAtOnce : 4;
  const int64_t ahead = rowCount <= 2 ? tuning.prefetchGroups * groupBytes : 0;
  for (int64_t i = 0; i < rowCount * 32; i++) out[i] = 0;
  alignas(32) uint8_t words[mostRows][64];
  PartedGroup<format> parted;
  for (int64_t g = 0; g < groupCount; g++, panel += groupBytes) {
    for (int64_t line = 0; ahead > 0 && line < groupBytes; line += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(panel) + ahead + line, _MM_HINT_T0);
    }
    const int8_t* codes = activations.codes + rowStart * stride + g * 32;
    GroupRows x{reinterpret_cast<const uint8_t*>(codes), activations.scales + rowStart * groupStride + g,
                activations.scaledSums + rowStart * groupStride + g, stride, groupStride};
    if (!isFourBit(format)) {
      for (int64_t m = 0; m < rowCount; m++) wordsOf(codes + m * stride, words[m]);
      x.codes = words[0];
      x.codeBytes = 64;
    }
    const PackedGroup<format> packed{panel};
    if (rowCount == 1) {
      addRows<format, 1>(packed, x, out);
      continue;
    }
    if (rowCount == 2 && most >= 2) {
      addRows<format, 2>(packed, x, out);
      continue;
    }
    parted.read(packed);
    float* sums = out;
    for (int64_t left = rowCount; left > 0;) {
      const int64_t rows = left < most ? left : most;
      switch (rows) {
        case 1: addRows<format, 1>(parted, x, sums); break;
        case 2: addRows<format, 2>(parted, x, sums); break;
        case 3: addRows<format, 3>(parted, x, sums); break;
        default: addRows<format, 4>(parted, x, sums); break;
      }
      x.codes += rows * x.codeBytes;
      x.scales += rows * groupStride;
      x.scaledSums += rows * groupStride;
      sums += rows * 32;
      left -= rows;
    }
  }
}

template <PanelFormat format>
void multiplyPanel(const uint8_t* panel, int64_t groupCount, const Activations& activations, int64_t rowStart,
                   int64_t rowCount, LinearTuning tuning, float* out) {
  for (int64_t m = 0; m < rowCount; m += mostRows) {
    const int64_t count = rowCount - m < mostRows ? rowCount - m : mostRows;
    multiplyRows<format>(panel, groupCount, activations, rowStart + m, count, tuning, out + m * 32);
  }
}

}  // namespace

const PanelKernels maddubsPanels{{multiplyPanel<PanelFormat::Int8>, multiplyPanel<PanelFormat::Int8Centred>,
                                  multiplyPanel<PanelFormat::Int4>, multiplyPanel<PanelFormat::Int4Centred>, nullptr}};

}  // namespace VARIATOR_TIER
}  // namespace variator
