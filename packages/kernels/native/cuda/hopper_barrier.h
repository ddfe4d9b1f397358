// Barriers in shared memory that count arrivals and bytes (mbarrier), the fences between ordinary and asynchronous
// accesses, and the register budgets of warpgroups: what every producer/consumer ring of the sm_90a kernels is built from.
// On the emulated device a barrier that was never initialised, one arrival or one byte too many, and a wait that can never
// end are faults. PTX ISA, "mbarrier", "Async Proxy", "setmaxnreg".
#pragma once
#include "device.cuh"
#if !defined(__CUDACC__)
#include "hopper_emulated.h"
#endif

// A kernel of which a multiprocessor holds one block: its warpgroups share out all registers (raise/lowerRegisters).
#if !defined(__CUDACC__)
#define KERNEL_ALONE(threads) static
#else
#define KERNEL_ALONE(threads) static __global__ __launch_bounds__(threads, 1)
#endif

namespace variator::cuda::hopper {

/** One mbarrier object: eight bytes of shared memory, aligned to eight, opaque between init and the end of the block. */
struct alignas(8) Barrier {
  uint64_t state;
};

#if !defined(__CUDACC__)

using proxy::sharedAddress;
inline void barrierInit(Barrier* barrier, uint32_t arrivals) { proxy::barrierInit(sharedAddress(barrier), arrivals); }
inline void barrierArrive(Barrier* barrier) { proxy::barrierArrive(sharedAddress(barrier), 0); }
inline void barrierArriveExpect(Barrier* barrier, uint32_t bytes) {
  proxy::barrierArrive(sharedAddress(barrier), bytes);
}
inline void barrierWait(Barrier* barrier, uint32_t parity) { proxy::barrierWait(sharedAddress(barrier), parity); }
inline void barrierArriveAt(Barrier* barrier, uint32_t rank) {
  proxy::barrierArrive(rank << 24 | proxy::offsetOf(sharedAddress(barrier)), 0);
}
inline uint32_t clusterRank() { return emulated::self().block->clusterRank; }
inline void syncCluster() { proxy::syncCluster(); }
inline void fenceBarrierInit() {}
inline void fenceAsyncProxy(const void* from, uint32_t bytes) { proxy::publishToAsyncProxy(from, bytes); }
template <int count>
inline void raiseRegisters() {
  proxy::setRegisters(count);
}
template <int count>
inline void lowerRegisters() {
  proxy::setRegisters(count);
}

#else

DEVICE void barrierInit(Barrier* barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(sharedAddress(barrier)), "r"(arrivals) : "memory");
}

DEVICE void barrierArrive(Barrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(sharedAddress(barrier)) : "memory");
}

/** At the same barrier of the cluster's block `rank`. */
DEVICE void barrierArriveAt(Barrier* barrier, uint32_t rank) {
  asm volatile(
      "{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n}\n" ::"r"(sharedAddress(barrier)),
      "r"(rank)
      : "memory");
}

DEVICE uint32_t clusterRank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

/** All threads of all blocks of the cluster; none may have returned. */
DEVICE void syncCluster() {
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

/** Arrives and adds `bytes` to what the phase still waits for: the bytes of the bulk copies that name this barrier. */
DEVICE void barrierArriveExpect(Barrier* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(sharedAddress(barrier)), "r"(bytes)
               : "memory");
}

/** Returns when the phase of this parity is over. A fresh barrier is in phase 0, so a wait for parity 1 returns at once. */
DEVICE void barrierWait(Barrier* barrier, uint32_t parity) {
  const uint32_t address = sharedAddress(barrier);
  uint32_t isOver;
  do {
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}\n"
        : "=r"(isOver)
        : "r"(address), "r"(parity)
        : "memory");
  } while (!isOver);
}

/** Between barrierInit and the first use of the barrier by a bulk copy or by another thread. */
DEVICE void fenceBarrierInit() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/** Every thread that wrote the range by ordinary stores calls it before wgmma or a bulk copy reads the range. */
DEVICE void fenceAsyncProxy(const void*, uint32_t) {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

template <int count>
DEVICE void raiseRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
}

template <int count>
DEVICE void lowerRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
}

#endif

/** Where a walker of a ring stands: the stage, and the parity of the phase it waits for there. */
template <int stages>
struct RingCursor {
  int stage = 0;
  uint32_t parity = 0;
  DEVICE void advance() {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

}  // namespace variator::cuda::hopper
