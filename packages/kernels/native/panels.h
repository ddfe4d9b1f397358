// The packed form of a weight matrix that the integer variants read, and the functions that multiply with it.
//
// A panel is 32 rows. For each group of 32 columns it holds, in one stream from first group to last:
//   int8   8 x [32 rows][4 columns] u8 codes                          | 32 half scales | 32 half minimums
//   int4   4 x [32 rows][4 columns] of two codes: columns 4k and on   | 32 half scales | 32 half minimums
//          in the low nibbles, columns 16 + 4k and on in the high ones
//   bf16   16 x [32 rows][2 columns] bf16
// weight = scale * code + minimum, or the bf16 number itself. A centred format has no minimums: they are -128 or -8 times the scale, exactly.
// int8 holds Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1 exactly, and Q4_K and Q5_K under scales rounded to half precision; float
// weights and Q6_K (a scale for every 16) are rounded to 256 steps between the group's extremes. int4 holds Q4_0, Q4_1
// and Q4_K as int8 does; whatever else is rounded to 16 steps.
//
// With activations a = scale_a * code_a, a group adds minimum * (scale_a * sum(codes_a)) and then
// dot(codes, codes_a) * (scale * scale_a); every product and sum is rounded by itself, and the dot is a whole number
// below 2^24. So every integer variant gives the same bits for the same weights, whatever its instructions and format.
// bf16 products are summed pair by pair along the columns; the instruction rounds otherwise than portable code.
#pragma once
#include <cstdint>

#include "float_ops.h"
#include "tensor.h"

namespace variator {

constexpr int64_t panelRows = 32;

enum class PanelFormat : uint8_t { Int8, Int8Centred, Int4, Int4Centred, Bf16 };
constexpr int panelFormatCount = 5;

static constexpr bool isFourBit(PanelFormat format) {
  return format == PanelFormat::Int4 || format == PanelFormat::Int4Centred;
}
static constexpr bool isCentred(PanelFormat format) {
  return format == PanelFormat::Int8Centred || format == PanelFormat::Int4Centred;
}
// The code that stands for 0 in a centred format.
static constexpr int centreOf(PanelFormat format) { return isFourBit(format) ? 8 : 128; }
static constexpr int64_t scaleOffsetOf(PanelFormat format) { return isFourBit(format) ? 512 : 1024; }
static constexpr int64_t minimumOffsetOf(PanelFormat format) { return scaleOffsetOf(format) + 64; }
static constexpr int64_t groupBytesOf(PanelFormat format) {
  return format == PanelFormat::Bf16 ? 2048 : minimumOffsetOf(format) + (isCentred(format) ? 0 : 64);
}

// A matrix in panels.
struct Panels {
  const uint8_t* data = nullptr;
  PanelFormat format = PanelFormat::Int8;
  int64_t groupCount = 0;
};

static inline int64_t panelCountOf(const Tensor& tensor) { return (tensor.rows + panelRows - 1) / panelRows; }
static inline int64_t groupCountOf(const Tensor& tensor) { return (tensor.columns + 31) / 32; }
static inline int64_t packedBytesOf(const Tensor& tensor, PanelFormat format) {
  return panelCountOf(tensor) * groupCountOf(tensor) * groupBytesOf(format);
}

// What a matrix is packed as: in bytes; in nibbles where it lies in nibbles; always in nibbles; or as bf16.
enum class PanelWidth { Eight, AsStored, Four, Bf16 };
PanelFormat panelFormatOf(Dtype dtype, PanelWidth width);
// Packs the whole matrix into `out` [packedBytesOf]. Throws NativeFault where a weight is beyond half precision's range.
Panels packPanels(const Tensor& tensor, PanelFormat format, uint8_t* out);

// How the panels of a matrix are walked; catalogue.ts has the ranges. None of it changes a bit.
struct LinearTuning {
  int32_t rowsAtOnce = 6;      // activation rows whose sums stay in registers; a variant takes fewer where it has fewer
  int32_t prefetchGroups = 4;  // how far ahead weights are fetched, where few rows are multiplied; 0 = not at all
  int32_t slabRows = 24;       // rows that a panel is multiplied with before the next one
  int32_t panelsAtOnce = 1;    // panels that a slab passes before the next slab
};

// One panel ([groupCount] groups at `panel`) times activation rows rowStart .. rowStart + rowCount, into
// out [rowCount, 32]. A row's bits do not depend on the rows beside it, nor on the tuning.
using PanelFunction = void (*)(const uint8_t* panel, int64_t groupCount, const Activations& activations,
                               int64_t rowStart, int64_t rowCount, LinearTuning tuning, float* out);

// What a variant multiplies with, by format.
struct PanelKernels {
  PanelFunction functions[panelFormatCount];
};

namespace tier_base {
extern const PanelKernels genericPanels, bf16Panels;
}
namespace tier_avx2 {
extern const PanelKernels genericPanels, bf16Panels, maddubsPanels;  // the last needs F16C, too
}
namespace tier_avx512 {
extern const PanelKernels genericPanels, bf16Panels, maddubsPanels;
}
extern const PanelKernels avx512VnniPanels;
extern const PanelKernels avx512Bf16Panels;  // of the format Bf16 alone, as portableBf16Panels()
// Portable C++ on the best tier.
const PanelKernels& genericPanels();
const PanelKernels& portableBf16Panels();

}  // namespace variator
