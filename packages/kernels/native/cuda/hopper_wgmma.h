// Warpgroup matrix multiply-accumulate (wgmma) and the 64-bit descriptors by which it finds its operands in shared memory.
// A is 64 x K (K = 16 bf16 or 32 e4m3), B is K x N, D is 64 x N float32 in the registers of the warpgroup's 128 threads.
// PTX ISA, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate": "Register Fragments", "Matrix Descriptor Format",
// "Strides". D of thread t: rows 16 (t / 32) + t % 32 / 4 and 8 below, columns 8 j + 2 (t % 4) and the next: see rowOf, columnOf.
// On the emulated device D holds garbage until wgmmaWait, and a late write to an operand or a missing fence is a fault.
#pragma once
#include "device.cuh"
#if !defined(__CUDACC__)
#include "hopper_emulated.h"
#else
#include "hopper_wgmma_shapes.h"
#endif

namespace variator::cuda::hopper {

/** Descriptor fields are in units of 16 bytes; bits 62-63 = 1 name the 128-byte swizzle, whose pattern repeats every 1024. */
DEVICE constexpr uint64_t descriptorOf(uint32_t address, uint32_t leadingBytes, uint32_t strideBytes) {
  return static_cast<uint64_t>((address & 0x3ffff) >> 4) | static_cast<uint64_t>(leadingBytes >> 4) << 16 |
         static_cast<uint64_t>(strideBytes >> 4) << 32 | 1ull << 62;
}

/** K-major operand: rows of 128 bytes along K, groups of 8 rows 1024 bytes apart; the leading offset is not used. */
DEVICE constexpr uint64_t describeKMajor(uint32_t address) {
  return descriptorOf(address, 16, 1024);
}

/**
 * M/N-major bf16 operand: 64 elements (128 bytes) of M or N a row, one row for each k; groups of 8 rows 1024 bytes apart,
 * the next 64 elements of M or N `nextColumnsBytes` on.
 */
DEVICE constexpr uint64_t describeMnMajor(uint32_t address, uint32_t nextColumnsBytes) {
  return descriptorOf(address, nextColumnsBytes, 1024);
}

/** Moves a descriptor's start by whole 16-byte units. */
DEVICE constexpr uint64_t descriptorPlus(uint64_t descriptor, uint32_t bytes) {
  return descriptor + (bytes >> 4);
}

enum class Major { k = 0, mn = 1 };

#if !defined(__CUDACC__)

inline void wgmmaFence() { proxy::wgmmaFence(); }
inline void wgmmaCommit() { proxy::wgmmaCommit(); }
template <int pending>
inline void wgmmaWait() {
  proxy::wgmmaWait(pending);
}
template <int n>
inline void pinRegisters(float (&)[n]) {}
template <int n, Major majorA = Major::k, Major majorB = Major::k>
inline void wgmmaBf16(float (&d)[n / 2], uint64_t descA, uint64_t descB, bool accumulates) {
  proxy::wgmma({n, 2, descA, nullptr, descB, majorA == Major::mn, majorB == Major::mn, accumulates}, d);
}
template <int n, Major majorB = Major::k>
inline void wgmmaBf16(float (&d)[n / 2], const uint32_t (&a)[4], uint64_t descB, bool accumulates) {
  proxy::wgmma({n, 2, 0, a, descB, false, majorB == Major::mn, accumulates}, d);
}
template <int n>
inline void wgmmaE4m3(float (&d)[n / 2], uint64_t descA, uint64_t descB, bool accumulates) {
  proxy::wgmma({n, 1, descA, nullptr, descB, false, false, accumulates}, d);
}

#else

/** Before the first wgmma, and whenever registers it reads or writes were touched by anything else. */
DEVICE void wgmmaFence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmmaCommit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

/** All but the latest `pending` groups are complete: their D may be read, their operands overwritten. */
template <int pending>
DEVICE void wgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

/** Keeps the compiler from moving accesses of these registers across this point. */
template <int n>
DEVICE void pinRegisters(float (&d)[n]) {
#pragma unroll
  for (int i = 0; i < n; i++) asm volatile("" : "+f"(d[i])::"memory");
}

template <int n, Major majorA = Major::k, Major majorB = Major::k>
DEVICE void wgmmaBf16(float (&d)[n / 2], uint64_t descA, uint64_t descB, bool accumulates) {
  ptx::Wgmma<n>::template sharedBf16<static_cast<int>(majorA), static_cast<int>(majorB)>(d, descA, descB, accumulates);
}

template <int n, Major majorB = Major::k>
DEVICE void wgmmaBf16(float (&d)[n / 2], const uint32_t (&a)[4], uint64_t descB, bool accumulates) {
  ptx::Wgmma<n>::template registersBf16<static_cast<int>(majorB)>(d, a, descB, accumulates);
}

template <int n>
DEVICE void wgmmaE4m3(float (&d)[n / 2], uint64_t descA, uint64_t descB, bool accumulates) {
  ptx::Wgmma<n>::sharedE4m3(d, descA, descB, accumulates);
}

#endif

/** Row (0..63) of this thread's accumulators 2 and 3 modulo 4 if `isLower`, else of 0 and 1. */
DEVICE int accumulatorRow(int thread, bool isLower) {
  return 16 * (thread / 32 % 4) + thread % 32 / 4 + (isLower ? 8 : 0);
}

/** Column of accumulator 4 * group (+ 1 for the one after it). */
DEVICE int accumulatorColumn(int thread, int group) { return 8 * group + 2 * (thread % 4); }

/** Byte offset in a tile of 128-byte rows (aligned to 1024) at which the 128-byte swizzle puts byte `column` of `row`. */
DEVICE constexpr uint32_t swizzledOffset(uint32_t row, uint32_t column) {
  return row * 128 + (column ^ (row & 7) << 4);
}

}  // namespace variator::cuda::hopper
