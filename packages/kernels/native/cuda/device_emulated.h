// device.cuh's words on the emulated device. Warp-wide operations bring all lanes together and compute them at once, by
// the layouts of the PTX ISA (9.7.14: matrix fragments). What a GPU would fault on, fails here.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <type_traits>

#include "emulator.h"
#include "float8_values.h"
#include "formats.h"
#include "gpu_emulated.h"

#define KERNEL(threads) static
#define DEVICE inline

namespace variator::cuda {

DEVICE Size3 threadIndex() { return emulated::self().index; }
DEVICE uint32_t thread() { return emulated::self().flat; }
DEVICE Size3 blockIndex() { return emulated::self().block->index; }
DEVICE Size3 gridSize() { return emulated::self().block->shape->grid; }
DEVICE uint32_t threadCount() { return static_cast<uint32_t>(emulated::self().block->threads.size()); }
DEVICE uint32_t lane() { return emulated::self().flat % 32; }
DEVICE uint32_t warp() { return emulated::self().flat / 32; }

// The block's dynamic shared memory, 1024-byte aligned.
DEVICE uint8_t* sharedMemory() { return emulated::self().block->shared; }

DEVICE void syncThreads() { emulated::waitAtBarrier(0, 0); }
// Barriers 1..15 among `count` threads (whole warps).
DEVICE void syncNamed(uint32_t id, uint32_t count) { emulated::waitAtBarrier(id, count); }
DEVICE void arriveNamed(uint32_t id, uint32_t count) { emulated::arriveAtBarrier(id, count); }
DEVICE void syncWarp() {
  emulated::gatherWarp("syncWarp", 0xffffffffu, nullptr, nullptr, [](emulated::Gathering&) {});
}

namespace emulated {

struct ShuffleIn {
  uint64_t bits;
  uint32_t from;
};

template <typename T>
T shuffleFrom(const char* operation, T value, uint32_t from) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  ShuffleIn in{0, from};
  std::memcpy(&in.bits, &value, sizeof(T));
  uint64_t out = 0;
  gatherWarp(operation, 0xffffffffu, &in, &out, [](Gathering& all) {
    for (uint32_t i = 0; i < warpSize; i++) {
      const uint32_t source = static_cast<const ShuffleIn*>(all.in[i])->from;
      *static_cast<uint64_t*>(all.out[i]) = static_cast<const ShuffleIn*>(all.in[source])->bits;
    }
  });
  T result;
  std::memcpy(&result, &out, sizeof(T));
  return result;
}

inline void requireAligned(const void* address, uintptr_t bytes, const char* what) {
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0) fail(std::string(what) + ": the address is not aligned to " + std::to_string(bytes) + " bytes");
}

}  // namespace emulated

template <typename T>
DEVICE T shuffle(T value, uint32_t from) {
  return emulated::shuffleFrom("shuffle", value, from % 32);
}
template <typename T>
DEVICE T shuffleXor(T value, uint32_t mask) {
  return emulated::shuffleFrom("shuffleXor", value, lane() ^ mask);
}
// From the lane `delta` below; its own in the first lanes.
template <typename T>
DEVICE T shuffleUp(T value, uint32_t delta) {
  return emulated::shuffleFrom("shuffleUp", value, lane() >= delta ? lane() - delta : lane());
}
DEVICE uint32_t ballot(bool isTrue) {
  uint32_t out = 0;
  emulated::gatherWarp("ballot", 0xffffffffu, &isTrue, &out, [](emulated::Gathering& all) {
    uint32_t votes = 0;
    for (uint32_t i = 0; i < 32; i++) votes |= *static_cast<const bool*>(all.in[i]) ? 1u << i : 0u;
    for (uint32_t i = 0; i < 32; i++) *static_cast<uint32_t*>(all.out[i]) = votes;
  });
  return out;
}

// 16 bytes of memory that is read again soon.
DEVICE Bytes16 load16(const void* from) {
  emulated::requireAligned(from, 16, "load16");
  Bytes16 value;
  std::memcpy(&value, from, 16);
  return value;
}
// 16 bytes of constant memory that is read once.
DEVICE Bytes16 loadOnce16(const void* from) { return load16(from); }
DEVICE void store16(void* to, const Bytes16& value) {
  emulated::requireAligned(to, 16, "store16");
  std::memcpy(to, &value, 16);
}

// Two neighbours to e4m3, the first in the low byte; beyond 448 it stays at 448.
DEVICE uint32_t e4m3OfTwo(float first, float second) { return toE4m3(first) | static_cast<uint32_t>(toE4m3(second)) << 8; }
// Byte i of the result is the one that nibble i of the selector names: 0..3 of `low`, 4..7 of `high`.
DEVICE uint32_t selectBytes(uint32_t low, uint32_t high, uint32_t selector) {
  const uint64_t all = low | static_cast<uint64_t>(high) << 32;
  uint32_t result = 0;
  for (uint32_t i = 0; i < 4; i++) result |= static_cast<uint32_t>(all >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
  return result;
}
// Pairs of bf16, rounded to bf16; subnormal numbers are numbers.
DEVICE uint32_t multiplyBf16Pairs(uint32_t a, uint32_t b) { return pairOf(lowOf(a) * lowOf(b), highOf(a) * highOf(b)); }
DEVICE uint32_t addBf16Pairs(uint32_t a, uint32_t b) { return pairOf(lowOf(a) + lowOf(b), highOf(a) + highOf(b)); }

// a * b + c, rounded once on the device and twice here.
DEVICE float multiplyAdd(float a, float b, float c) { return a * b + c; }
// Never contracted with what comes after.
DEVICE float multiplyRounded(float a, float b) { return a * b; }
DEVICE float addRounded(float a, float b) { return a + b; }
DEVICE float reciprocalRoot(float value) { return 1.0f / std::sqrt(value); }
DEVICE float exp2Fast(float value) { return std::exp2(value); }
DEVICE float expFast(float value) { return std::exp(value); }

DEVICE int32_t atomicAddTo(int32_t* to, int32_t value) { return (*to += value) - value; }
DEVICE uint32_t atomicAddTo(uint32_t* to, uint32_t value) { return (*to += value) - value; }
DEVICE uint64_t atomicAddTo(uint64_t* to, uint64_t value) { return (*to += value) - value; }
DEVICE void threadFence() {}

// cp.async of 16 bytes from global to shared memory; of the source only `validBytes` are read, the rest becomes zero. The
// bytes are there after waitCopies of a group that was committed since, and a barrier for other threads.
DEVICE void copyAsync16(void* to, const void* from, uint32_t validBytes = 16) {
  emulated::requireAligned(to, 16, "copyAsync16");
  emulated::requireAligned(from, 16, "copyAsync16");
  emulated::issueCopy({to, from, 16, validBytes, 0});
}
DEVICE void commitCopies() { emulated::commitCopies(); }
// Until at most `pending` of the groups committed by this thread are under way.
template <int pending>
DEVICE void waitCopies() {
  emulated::waitForCopies(pending);
}

namespace emulated {

struct LoadMatrixIn {
  const uint8_t* row;
  bool isTransposed;
  uint32_t count;
};

inline void loadMatrices(uint32_t* out, const void* row, uint32_t count, bool isTransposed) {
  const LoadMatrixIn in{static_cast<const uint8_t*>(row), isTransposed, count};
  // Of fewer than four matrices only the first lanes' addresses count.
  if (lane() < 8 * count) requireAligned(row, 16, "loadMatrix");
  gatherWarp("loadMatrix", 0xffffffffu, &in, out, [](Gathering& all) {
    const auto rowOf = [&](uint32_t i) { return static_cast<const LoadMatrixIn*>(all.in[i])->row; };
    const auto& first = *static_cast<const LoadMatrixIn*>(all.in[0]);
    for (uint32_t i = 0; i < 32; i++) {
      uint32_t results[4];
      for (uint32_t m = 0; m < first.count; m++) {
        if (first.isTransposed) {
          uint16_t halves[2];
          for (uint32_t h = 0; h < 2; h++) std::memcpy(&halves[h], rowOf(8 * m + 2 * (i % 4) + h) + 2 * (i / 4), 2);
          results[m] = halves[0] | static_cast<uint32_t>(halves[1]) << 16;
        } else {
          std::memcpy(&results[m], rowOf(8 * m + i / 4) + 4 * (i % 4), 4);
        }
      }
      std::memcpy(all.out[i], results, 4 * first.count);
    }
  });
}

struct MultiplyIn {
  const float* d;
  const uint32_t *a, *b;
};

inline float bf16Of(uint32_t word, uint32_t half) { return half == 0 ? lowOf(word) : highOf(word); }

}  // namespace emulated

// ldmatrix: matrix m of 8 x 8 16-bit elements has its rows at the addresses of lanes 8m .. 8m + 7; lane i receives of it
// the elements 2(i % 4) and 2(i % 4) + 1 of row i / 4 (transposed: of column i / 4).
DEVICE void loadMatrix4(uint32_t (&out)[4], const void* row) { emulated::loadMatrices(out, row, 4, false); }
DEVICE void loadMatrix2(uint32_t (&out)[2], const void* row) { emulated::loadMatrices(out, row, 2, false); }
DEVICE void loadMatrix4Transposed(uint32_t (&out)[4], const void* row) { emulated::loadMatrices(out, row, 4, true); }
DEVICE void loadMatrix2Transposed(uint32_t (&out)[2], const void* row) { emulated::loadMatrices(out, row, 2, true); }

// mma.sync m16n8k16, row.col, bf16 with float32 sums: d += a b. With g = lane / 4 and t = lane % 4, in pairs along k or n:
//   a[0] row g, k 2t..    a[1] row g + 8, k 2t..    a[2] row g, k 2t + 8..    a[3] row g + 8, k 2t + 8..
//   b[0] k 2t.., column g    b[1] k 2t + 8.., column g    d[0], d[1] row g, columns 2t..    d[2], d[3] row g + 8
DEVICE void multiplyBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const emulated::MultiplyIn in{d, a, b};
  float out[4];
  emulated::gatherWarp("multiplyBf16", 0xffffffffu, &in, out, [](emulated::Gathering& all) {
    float a[16][16], b[8][16];
    for (uint32_t i = 0; i < 32; i++) {
      const auto& one = *static_cast<const emulated::MultiplyIn*>(all.in[i]);
      const uint32_t g = i / 4, t = i % 4;
      for (uint32_t h = 0; h < 2; h++) {
        a[g][2 * t + h] = emulated::bf16Of(one.a[0], h);
        a[g + 8][2 * t + h] = emulated::bf16Of(one.a[1], h);
        a[g][2 * t + 8 + h] = emulated::bf16Of(one.a[2], h);
        a[g + 8][2 * t + 8 + h] = emulated::bf16Of(one.a[3], h);
        b[g][2 * t + h] = emulated::bf16Of(one.b[0], h);
        b[g][2 * t + 8 + h] = emulated::bf16Of(one.b[1], h);
      }
    }
    for (uint32_t i = 0; i < 32; i++) {
      const uint32_t g = i / 4, t = i % 4;
      const float* d = static_cast<const emulated::MultiplyIn*>(all.in[i])->d;
      auto* out = static_cast<float*>(all.out[i]);
      for (uint32_t r = 0; r < 2; r++) {
        for (uint32_t c = 0; c < 2; c++) {
          float sum = d[2 * r + c];
          for (uint32_t k = 0; k < 16; k++) sum += a[g + 8 * r][k] * b[2 * t + c][k];
          out[2 * r + c] = sum;
        }
      }
    }
  });
  std::memcpy(d, out, sizeof(out));
}

// Programmatic dependent launch: nothing here, where launches come one after another.
DEVICE void waitForLaunchBefore() {}
DEVICE void letLaunchAfterStart() {}

template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const LaunchShape& shape, Stream stream, Arguments... arguments) {
  // Arguments are taken by value now, as a launch does.
  enqueueLaunch(name, shape, [kernel, arguments...] { kernel(Parameters(arguments)...); }, stream);
}

}  // namespace variator::cuda
