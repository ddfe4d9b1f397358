// The packed form of a weight matrix that both int8 variants read, and the variants' panel functions.
//
// A panel is 32 rows. For each group of 32 columns it holds (1152 bytes, one stream from first group to last):
//   8 x [32 rows][4 columns] u8 codes | 32 half scales | 32 half minimums       weight = scale * code + minimum
// Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1 are represented exactly; Q4_K and Q5_K keep their codes under scales rounded to half
// precision; float weights and Q6_K (a scale for every 16) are rounded to 256 steps between the group's extremes.
// With activations a = scale_a * code_a:  sum += scale_a * (scale * dot(codes, codes_a) + minimum * sum(codes_a)).
#pragma once
#include <cstdint>

#include "float_ops.h"
#include "tensor.h"

namespace variator {

constexpr int64_t panelRows = 32;
constexpr int64_t groupBytes = 1152;
constexpr int64_t scaleOffset = 1024;
constexpr int64_t minimumOffset = 1088;

static inline int64_t panelCountOf(const Tensor& tensor) { return (tensor.rows + panelRows - 1) / panelRows; }
static inline int64_t groupCountOf(const Tensor& tensor) { return (tensor.columns + 31) / 32; }
static inline int64_t packedBytesOf(const Tensor& tensor) { return panelCountOf(tensor) * groupCountOf(tensor) * groupBytes; }

// Packs the whole matrix into `out` [packedBytesOf]. Throws NativeFault where a weight is beyond half precision's range.
void packPanels(const Tensor& tensor, uint8_t* out);

// linear.int8-avx512vnni, for machines with AVX-512 VNNI; linear.int8-generic is in float_ops.h's tiers.
#if defined(VARIATOR_HAS_X86_TIERS)
void int8PanelAvx512Vnni(const uint8_t* panel, int64_t groupCount, const Activations& activations, int64_t rowStart,
                         int64_t rowCount, float* out);
#endif

}  // namespace variator
