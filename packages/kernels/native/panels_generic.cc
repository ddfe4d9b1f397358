// Integer and bf16 panels in portable C++, for every machine. Dot products of codes are taken in float32, where they are exact:
// 32 * 255 * 127 is below 2^24. Compiled once a tier (the same bits from each); called by step.cc. Reads four codes of
// a row as one little-endian word.
#include "half.h"
#include "panels.h"
#include "wide.h"

namespace variator {
namespace VARIATOR_TIER {
namespace {

struct GroupLanes {
  Lanes codes[32][2];  // [column][rows 0..15, 16..31]
  Lanes scales[2], minimums[2];
};

Lanes halvesAt(const uint8_t* from) {
  float values[16];
  for (int i = 0; i < 16; i++) {
    uint16_t half;
    __builtin_memcpy(&half, from + 2 * i, 2);
    values[i] = floatFromHalf(half);
  }
  return load(values);
}

template <PanelFormat format>
void readGroup(const uint8_t* panel, GroupLanes& group) {
  for (int k = 0; k < (isFourBit(format) ? 4 : 8); k++) {
    for (int half = 0; half < 2; half++) {
      IntLanes words;
      __builtin_memcpy(&words, panel + k * 128 + half * 64, 64);
      for (int j = 0; j < 4; j++) {
        const IntLanes codes = words >> (8 * j);
        group.codes[k * 4 + j][half] = __builtin_convertvector(codes & (isFourBit(format) ? 15 : 255), Lanes);
        if (isFourBit(format)) group.codes[16 + k * 4 + j][half] = __builtin_convertvector(codes >> 4 & 15, Lanes);
      }
    }
  }
  for (int half = 0; half < 2; half++) {
    group.scales[half] = halvesAt(panel + scaleOffsetOf(format) + half * 32);
    group.minimums[half] = isCentred(format) ? group.scales[half] * fill(-centreOf(format))
                                             : halvesAt(panel + minimumOffsetOf(format) + half * 32);
  }
}

template <PanelFormat format>
void multiplyPanel(const uint8_t* panel, int64_t groupCount, const Activations& activations, int64_t rowStart,
                   int64_t rowCount, LinearTuning, float* out) {
  const int64_t groupStride = activations.stride / 32;
  for (int64_t i = 0; i < rowCount * 32; i++) out[i] = 0;
  GroupLanes group;
  for (int64_t g = 0; g < groupCount; g++, panel += groupBytesOf(format)) {
    readGroup<format>(panel, group);
    for (int64_t m = 0; m < rowCount; m++) {
      const int64_t row = rowStart + m;
      const int8_t* codes = activations.codes + row * activations.stride + g * 32;
      float others[32];
      for (int k = 0; k < 32; k++) others[k] = codes[k];
      Lanes even[2]{}, odd[2]{};
      for (int k = 0; k < 32; k += 2) {
        for (int half = 0; half < 2; half++) {
          even[half] += group.codes[k][half] * others[k];
          odd[half] += group.codes[k + 1][half] * others[k + 1];
        }
      }
      const float scale = activations.scales[row * groupStride + g];
      const float scaledSum = activations.scaledSums[row * groupStride + g];
      for (int half = 0; half < 2; half++) {
        float* sums = out + m * 32 + half * 16;
        const Lanes sum = load(sums) + group.minimums[half] * scaledSum;
        store(sums, sum + (even[half] + odd[half]) * (group.scales[half] * scale));
      }
    }
  }
}

// A register of 16 rows holds of each row a pair of neighbouring columns, the first in its low half.
template <int rows>
VARIATOR_INLINE void multiplyBf16Rows(const uint8_t* panel, int64_t groupCount, const uint16_t* x, int64_t stride, float* out) {
  Wide sums[rows][2];
#pragma GCC unroll 2
  for (int m = 0; m < rows; m++) sums[m][0] = sums[m][1] = noSum();
  for (int64_t pair = 0; pair < groupCount * 16; pair++) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
      Wide lower, upper;
      bf16PairsAt(reinterpret_cast<const uint16_t*>(panel + pair * 128 + half * 64), &lower, &upper);
#pragma GCC unroll 2
      for (int m = 0; m < rows; m++) {
        sums[m][half] = plus(sums[m][half], multiply(lower, floatFromBf16(x[m * stride + 2 * pair])));
        sums[m][half] = plus(sums[m][half], multiply(upper, floatFromBf16(x[m * stride + 2 * pair + 1])));
      }
    }
  }
#pragma GCC unroll 2
  for (int m = 0; m < rows; m++) {
    store(out + m * 32, sums[m][0]);
    store(out + m * 32 + 16, sums[m][1]);
  }
}

void multiplyBf16(const uint8_t* panel, int64_t groupCount, const Activations& activations, int64_t rowStart,
                  int64_t rowCount, LinearTuning, float* out) {
  const int64_t stride = activations.stride;
  const uint16_t* x = activations.bf16 + rowStart * stride;
  int64_t m = 0;
  for (; m + 2 <= rowCount; m += 2) multiplyBf16Rows<2>(panel, groupCount, x + m * stride, stride, out + m * 32);
  if (m < rowCount) multiplyBf16Rows<1>(panel, groupCount, x + m * stride, stride, out + m * 32);
}

}  // namespace

const PanelKernels bf16Panels{{nullptr, nullptr, nullptr, nullptr, multiplyBf16}};
const PanelKernels genericPanels{{multiplyPanel<PanelFormat::Int8>, multiplyPanel<PanelFormat::Int8Centred>,
                                  multiplyPanel<PanelFormat::Int4>, multiplyPanel<PanelFormat::Int4Centred>, nullptr}};

}  // namespace VARIATOR_TIER
}  // namespace variator
