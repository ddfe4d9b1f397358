// FloatOps, plain: the slow, obvious arithmetic that judges every other variant. Compiled once a tier; every sum has
// one order whatever the tier, the batch or the thread. Refuses to include anything with inline library code, which a
// linker could share between tiers.
#include "float_ops.h"

#include "dequantise.h"
#include "half.h"
#include "wide.h"

namespace variator {
namespace VARIATOR_TIER {
namespace {

int64_t padded(int64_t columns) { return (columns + 31) / 32 * 32; }

void dequantiseRow(const uint8_t* row, Dtype dtype, int64_t columns, float* out) {
  for (int64_t i = columns; i < padded(columns); i++) out[i] = 0;
  switch (dtype) {
    case Dtype::F32:
      __builtin_memcpy(out, row, static_cast<size_t>(columns) * 4);
      return;
    case Dtype::F16:
      for (int64_t i = 0; i < columns; i++) out[i] = floatFromHalf(halfAt(row + 2 * i));
      return;
    case Dtype::BF16:
      for (int64_t i = 0; i < columns; i++) out[i] = floatFromBf16(halfAt(row + 2 * i));
      return;
    case Dtype::Q8_0:  // half scale, 32 int8
      for (int64_t i = 0; i < columns; i += 32, row += 34) {
        const float scale = scaleAt(row);
        store(out + i, scale * (lanesOf(bytesAt(row + 2) ^ 0x80) - 128.0f));
        store(out + i + 16, scale * (lanesOf(bytesAt(row + 18) ^ 0x80) - 128.0f));
      }
      return;
    case Dtype::Q4_0:  // half scale, 16 bytes: low nibbles are weights 0..15, high ones 16..31
      for (int64_t i = 0; i < columns; i += 32, row += 18) {
        const float scale = scaleAt(row);
        store(out + i, scale * (lanesOf(bytesAt(row + 2) & 15) - 8.0f));
        store(out + i + 16, scale * (lanesOf(bytesAt(row + 2) >> 4) - 8.0f));
      }
      return;
    case Dtype::Q4_1:  // half scale, half minimum, 16 bytes of nibbles
      for (int64_t i = 0; i < columns; i += 32, row += 20) {
        const float scale = scaleAt(row), minimum = scaleAt(row + 2);
        store(out + i, scale * lanesOf(bytesAt(row + 4) & 15) + minimum);
        store(out + i + 16, scale * lanesOf(bytesAt(row + 4) >> 4) + minimum);
      }
      return;
    case Dtype::Q5_0:  // half scale, five-bit codes
      for (int64_t i = 0; i < columns; i += 32, row += 22) {
        const float scale = scaleAt(row);
        Lanes low, high;
        fiveBitCodes(row + 2, low, high);
        store(out + i, scale * (low - 16.0f));
        store(out + i + 16, scale * (high - 16.0f));
      }
      return;
    case Dtype::Q5_1:  // half scale, half minimum, five-bit codes
      for (int64_t i = 0; i < columns; i += 32, row += 24) {
        const float scale = scaleAt(row), minimum = scaleAt(row + 2);
        Lanes low, high;
        fiveBitCodes(row + 4, low, high);
        store(out + i, scale * low + minimum);
        store(out + i + 16, scale * high + minimum);
      }
      return;
    case Dtype::Q4_K:
      for (int64_t i = 0; i < columns; i += 256, row += 144) fourBitSuperBlock(row, false, out + i);
      return;
    case Dtype::Q5_K:
      for (int64_t i = 0; i < columns; i += 256, row += 176) fourBitSuperBlock(row, true, out + i);
      return;
    case Dtype::Q6_K:
      for (int64_t i = 0; i < columns; i += 256, row += 210) sixBitSuperBlock(row, out + i);
      return;
  }
}

void rmsNorm(const float* x, const float* weight, int64_t size, float epsilon, float* out) {
  Lanes squares{};
  int64_t i = 0;
  for (; i + 16 <= size; i += 16) squares += load(x + i) * load(x + i);
  float sum = sumOf(squares);
  for (; i < size; i++) sum += x[i] * x[i];
  const float factor = 1.0f / __builtin_sqrtf(sum / static_cast<float>(size) + epsilon);
  for (i = 0; i < size; i++) out[i] = weight[i] * (x[i] * factor);
}

template <int count, int rows>
VARIATOR_INLINE void dotsOf(const float* weights, const float* x, int64_t stride, float* out) {
  Wide sums[count][rows];
#pragma GCC unroll 4
  for (int m = 0; m < count; m++) {
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) sums[m][r] = noSum();
  }
  for (int64_t k = 0; k < stride; k += 16) {
    Wide weight[rows];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) weight[r] = wideAt(weights + r * stride + k);
#pragma GCC unroll 4
    for (int m = 0; m < count; m++) {
      const Wide value = wideAt(x + m * stride + k);
#pragma GCC unroll 4
      for (int r = 0; r < rows; r++) sums[m][r] = plus(sums[m][r], multiply(weight[r], value));
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < count; m++) {
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
      float lanes[16];
      store(lanes, sums[m][r]);
      out[m * 32 + r] = sumOf(load(lanes));
    }
  }
}

// Four weight rows against `count` activation rows: one sum of 16 lanes along K for each, in the same order however
// many there are and however many stay in registers together.
template <int count>
VARIATOR_INLINE void dots(const float* weights, const float* x, int64_t stride, float* out) {
  constexpr int side = count < sideInRegisters ? count : sideInRegisters;
  for (int m = 0; m < count; m += side) {
    for (int r = 0; r < 4; r += sideInRegisters) {
      dotsOf<side, sideInRegisters>(weights + r * stride, x + m * stride, stride, out + m * 32 + r);
    }
  }
}

void linearPanel(const Tensor& weight, const Activations& activations, int64_t panel, int64_t rowStart,
                 int64_t rowCount, float* weightRows, float* out) {
  const int64_t stride = activations.stride;
  const float* x = activations.values + rowStart * stride;
  for (int64_t first = 0; first < 32; first += 4) {
    for (int64_t r = 0; r < 4; r++) {
      const int64_t row = panel * 32 + first + r;
      if (row < weight.rows) {
        dequantiseRow(weight.row(row), weight.dtype, weight.columns, weightRows + r * stride);
      } else {
        for (int64_t i = 0; i < stride; i++) weightRows[r * stride + i] = 0;
      }
    }
    int64_t m = 0;
    for (; m + 4 <= rowCount; m += 4) dots<4>(weightRows, x + m * stride, stride, out + m * 32 + first);
    for (; m < rowCount; m++) dots<1>(weightRows, x + m * stride, stride, out + m * 32 + first);
  }
}

void rotate(float* head, const float* cosines, const float* sines, int64_t half, bool isInterleaved) {
  for (int64_t i = 0; i < half; i++) {
    float& first = head[isInterleaved ? 2 * i : i];
    float& second = head[isInterleaved ? 2 * i + 1 : i + half];
    const float x = first, y = second;
    first = x * cosines[i] - y * sines[i];
    second = y * cosines[i] + x * sines[i];
  }
}

void swiGlu(const float* gate, const float* up, int64_t size, float* out) {
  for (int64_t i = 0; i < size; i += 16) {
    const Lanes x = load(gate + i);
    store(out + i, x / (1.0f + exponential(-x)) * load(up + i));
  }
}

void add(const float* x, int64_t size, float* sum) {
  for (int64_t i = 0; i < size; i++) sum[i] += x[i];
}

void addScaled(const float* x, int64_t size, float factor, float* sum) {
  for (int64_t i = 0; i < size; i++) sum[i] += factor * x[i];
}

void quantise(const float* x, int64_t groupCount, int8_t* codes, float* scales, float* scaledSums) {
  for (int64_t g = 0; g < groupCount; g++, x += 32, codes += 32) {
    const Lanes low = load(x), high = load(x + 16);
    const float most = maxOf(maxOf(maxOf(low, -low), maxOf(high, -high)));
    const float inverse = most > 0 ? 127.0f / most : 0;
    const Lanes lowCodes = nearest(low * inverse), highCodes = nearest(high * inverse);
    const Bytes lowBytes = bytesOf(lowCodes), highBytes = bytesOf(highCodes);
    __builtin_memcpy(codes, &lowBytes, 16);
    __builtin_memcpy(codes + 16, &highBytes, 16);
    scales[g] = most / 127.0f;
    scaledSums[g] = scales[g] * sumOf(lowCodes + highCodes);
  }
}

void leftOver(const float* x, int64_t groupCount, const int8_t* codes, const float* scales, float* rest) {
  for (int64_t i = 0; i < groupCount * 32; i++) rest[i] = x[i] - static_cast<float>(codes[i]) * scales[i / 32];
}

void roundToBf16(const float* x, int64_t size, uint16_t* out) {
  for (int64_t i = 0; i < size; i++) out[i] = bf16FromFloat(x[i]);
}

void exponentials(const float* x, int64_t size, float most, float factor, float* out) {
  int64_t i = 0;
  for (; i + 16 <= size; i += 16) store(out + i, exponential((load(x + i) - most) * factor));
  if (i == size) return;
  float rest[16]{};
  for (int64_t j = i; j < size; j++) rest[j - i] = (x[j] - most) * factor;
  store(rest, exponential(load(rest)));
  for (int64_t j = i; j < size; j++) out[j] = rest[j - i];
}

float mostOf(const float* x, int64_t size) {
  float most = x[0];
  int64_t i = 0;
  if (size >= 16) {
    Lanes lanes = load(x);
    for (i = 16; i + 16 <= size; i += 16) lanes = maxOf(load(x + i), lanes);
    most = maxOf(lanes);
  }
  for (; i < size; i++) most = x[i] > most ? x[i] : most;
  return most;
}

}  // namespace

extern const FloatOps floatOps{dequantiseRow, rmsNorm,   linearPanel, rotate,       swiGlu, add,
                               addScaled,     quantise, leftOver, roundToBf16, exponentials, mostOf};

}  // namespace VARIATOR_TIER
}  // namespace variator
