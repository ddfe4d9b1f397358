// device.cuh's words under nvcc, for sm_90a: thin wrappers around built-ins and PTX, one instruction each where it can be.
#pragma once
#include <cuda_runtime.h>

#include <type_traits>

#include "formats.h"
#include "gpu_native.h"

#define KERNEL(threads) static __global__ __launch_bounds__(threads)
#define DEVICE __device__ __forceinline__

namespace variator::cuda {

DEVICE Size3 threadIndex() { return {threadIdx.x, threadIdx.y, threadIdx.z}; }
DEVICE uint32_t thread() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }
DEVICE Size3 blockIndex() { return {blockIdx.x, blockIdx.y, blockIdx.z}; }
DEVICE Size3 gridSize() { return {gridDim.x, gridDim.y, gridDim.z}; }
DEVICE uint32_t threadCount() { return blockDim.x * blockDim.y * blockDim.z; }
DEVICE uint32_t lane() { return thread() % 32; }
DEVICE uint32_t warp() { return thread() / 32; }

DEVICE uint8_t* sharedMemory() {
  extern __shared__ __align__(1024) uint8_t variatorShared[];
  return variatorShared;
}
DEVICE uint32_t sharedAddress(const void* shared) { return static_cast<uint32_t>(__cvta_generic_to_shared(shared)); }

DEVICE void syncThreads() { __syncthreads(); }
DEVICE void syncNamed(uint32_t id, uint32_t count) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(count) : "memory"); }
DEVICE void arriveNamed(uint32_t id, uint32_t count) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(count) : "memory"); }
DEVICE void syncWarp() { __syncwarp(); }

template <typename T>
DEVICE T shuffle(T value, uint32_t from) {
  return __shfl_sync(0xffffffffu, value, static_cast<int>(from));
}
template <typename T>
DEVICE T shuffleXor(T value, uint32_t mask) {
  return __shfl_xor_sync(0xffffffffu, value, static_cast<int>(mask));
}
template <typename T>
DEVICE T shuffleUp(T value, uint32_t delta) {
  return __shfl_up_sync(0xffffffffu, value, delta);
}
DEVICE uint64_t shuffle(uint64_t value, uint32_t from) {
  return __shfl_sync(0xffffffffu, static_cast<unsigned long long>(value), static_cast<int>(from));
}
DEVICE uint64_t shuffleXor(uint64_t value, uint32_t mask) {
  return __shfl_xor_sync(0xffffffffu, static_cast<unsigned long long>(value), static_cast<int>(mask));
}
DEVICE uint64_t shuffleUp(uint64_t value, uint32_t delta) {
  return __shfl_up_sync(0xffffffffu, static_cast<unsigned long long>(value), delta);
}
DEVICE uint32_t ballot(bool isTrue) { return __ballot_sync(0xffffffffu, isTrue); }

DEVICE Bytes16 load16(const void* from) {
  const uint4 value = *static_cast<const uint4*>(from);
  return {{value.x, value.y, value.z, value.w}};
}
DEVICE Bytes16 loadOnce16(const void* from) {
  Bytes16 value;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.words[0]), "=r"(value.words[1]), "=r"(value.words[2]), "=r"(value.words[3])
               : "l"(from));
  return value;
}
DEVICE void store16(void* to, const Bytes16& value) {
  *static_cast<uint4*>(to) = make_uint4(value.words[0], value.words[1], value.words[2], value.words[3]);
}

DEVICE uint32_t e4m3OfTwo(float first, float second) {
  uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(second), "f"(first));
  return pair;
}
DEVICE uint32_t selectBytes(uint32_t low, uint32_t high, uint32_t selector) { return __byte_perm(low, high, selector); }
DEVICE uint32_t multiplyBf16Pairs(uint32_t a, uint32_t b) {
  uint32_t result;
  asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(result) : "r"(a), "r"(b));
  return result;
}
DEVICE uint32_t addBf16Pairs(uint32_t a, uint32_t b) {
  uint32_t result;
  asm("add.rn.bf16x2 %0, %1, %2;" : "=r"(result) : "r"(a), "r"(b));
  return result;
}

DEVICE float multiplyAdd(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DEVICE float multiplyRounded(float a, float b) { return __fmul_rn(a, b); }
DEVICE float addRounded(float a, float b) { return __fadd_rn(a, b); }
DEVICE float reciprocalRoot(float value) { return __fdiv_rn(1.0f, __fsqrt_rn(value)); }
DEVICE float exp2Fast(float value) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
  return result;
}
DEVICE float expFast(float value) { return __expf(value); }

DEVICE int32_t atomicAddTo(int32_t* to, int32_t value) { return atomicAdd(to, value); }
DEVICE uint32_t atomicAddTo(uint32_t* to, uint32_t value) { return atomicAdd(to, value); }
DEVICE uint64_t atomicAddTo(uint64_t* to, uint64_t value) {
  return atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(value));
}
DEVICE void threadFence() { __threadfence(); }

DEVICE void copyAsync16(void* to, const void* from, uint32_t validBytes = 16) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(sharedAddress(to)), "l"(from), "r"(validBytes)
               : "memory");
}
DEVICE void commitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int pending>
DEVICE void waitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

DEVICE void loadMatrix4(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(sharedAddress(row))
               : "memory");
}
DEVICE void loadMatrix2(uint32_t (&out)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(out[0]), "=r"(out[1]) : "r"(sharedAddress(row)) : "memory");
}
DEVICE void loadMatrix4Transposed(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(sharedAddress(row))
               : "memory");
}
DEVICE void loadMatrix2Transposed(uint32_t (&out)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(out[0]), "=r"(out[1])
               : "r"(sharedAddress(row))
               : "memory");
}
DEVICE void multiplyBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  // Not volatile: nothing but its operands, so that the compiler may order it among the loads.
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

DEVICE void waitForLaunchBefore() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
DEVICE void letLaunchAfterStart() { asm volatile("griddepcontrol.launch_dependents;"); }

template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const LaunchShape& shape, Stream stream, Arguments... arguments) {
  std::tuple<std::decay_t<Parameters>...> values(arguments...);
  std::apply(
      [&](auto&... each) {
        void* pointers[] = {&each...};
        launchKernel(name, reinterpret_cast<const void*>(kernel), shape, stream, pointers);
      },
      values);
}

}  // namespace variator::cuda
