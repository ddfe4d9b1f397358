// The packed form of a weight matrix that the integer variants read, and the functions that multiply with it.
//
// A panel is 32 rows. For each group of 32 columns it holds, in one stream from first group to last:
//   8 x [32 rows][4 columns] u8 codes | 32 half scales | 32 half minimums       weight = scale * code + minimum
// A centred format has no minimums: they are -128 * scale, exactly (Q8_0).
// Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1 are represented exactly; Q4_K and Q5_K keep their codes under scales rounded to half
// precision; float weights and Q6_K (a scale for every 16) are rounded to 256 steps between the group's extremes.
//
// With activations a = scale_a * code_a, a group adds minimum * (scale_a * sum(codes_a)) and then
// dot(codes, codes_a) * (scale * scale_a); every product and sum is rounded by itself, and the dot is a whole number
// below 2^24. So every variant gives the same bits for the same weights, whatever its instructions.
#pragma once
#include <cstdint>

#include "float_ops.h"
#include "tensor.h"

namespace variator {

constexpr int64_t panelRows = 32;

enum class PanelFormat : uint8_t { Int8, Int8Centred };
constexpr int panelFormatCount = 2;

static constexpr bool isCentred(PanelFormat format) { return format == PanelFormat::Int8Centred; }
// The code that stands for 0 in a centred format.
static constexpr int centreOf(PanelFormat) { return 128; }
static constexpr int64_t scaleOffsetOf(PanelFormat) { return 1024; }
static constexpr int64_t minimumOffsetOf(PanelFormat format) { return scaleOffsetOf(format) + 64; }
static constexpr int64_t groupBytesOf(PanelFormat format) {
  return minimumOffsetOf(format) + (isCentred(format) ? 0 : 64);
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

// The smallest format that adds no rounding to the tensor's own.
PanelFormat panelFormatOf(const Tensor& tensor);
// Packs the whole matrix into `out` [packedBytesOf]. Throws NativeFault where a weight is beyond half precision's range.
Panels packPanels(const Tensor& tensor, PanelFormat format, uint8_t* out);

// One panel ([groupCount] groups at `panel`) times activation rows rowStart .. rowStart + rowCount, into
// out [rowCount, 32]. A row's bits do not depend on the rows beside it.
using PanelFunction = void (*)(const uint8_t* panel, int64_t groupCount, const Activations& activations,
                               int64_t rowStart, int64_t rowCount, float* out);

// What a variant multiplies with, by format.
struct PanelKernels {
  PanelFunction functions[panelFormatCount];
};

namespace tier_base {
extern const PanelKernels genericPanels;
}
namespace tier_avx2 {
extern const PanelKernels genericPanels, maddubsPanels;  // the latter needs F16C, too
}
namespace tier_avx512 {
extern const PanelKernels genericPanels, maddubsPanels;
}
extern const PanelKernels avx512VnniPanels;
// Portable C++ on the best tier.
const PanelKernels& genericPanels();

}  // namespace variator
