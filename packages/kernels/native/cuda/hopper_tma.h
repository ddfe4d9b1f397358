// Bulk tensor copies (TMA) between global and shared memory: boxes of a matrix named by a tensor map, laid down with the
// 128-byte swizzle that wgmma reads, zero beyond the matrix's edges; the bytes arrive at a barrier. Loads are issued by one
// thread. PTX ISA, "cp.async.bulk.tensor", "Tensors", "Swizzling Modes". On the emulated device a load poisons its target
// when issued, writes it at a random later time, and a target in use by another copy or by a wgmma is a fault.
#pragma once
#include "hopper_barrier.h"
#include "hopper_tensor_map.h"

namespace variator::cuda::hopper {

#if !defined(__CUDACC__)

inline void prefetchTensorMap(const TensorMap*) {}
/** Box at (column, row) to `target`; completes its bytes at `barrier`. Coordinates may be negative or beyond the edges. */
inline void loadBox(void* target, const TensorMap* map, Barrier* barrier, int column, int row) {
  proxy::loadBox(sharedAddress(target), *map, sharedAddress(barrier), {column, row, 0});
}
inline void loadBox(void* target, const TensorMap* map, Barrier* barrier, int column, int row, int plane) {
  proxy::loadBox(sharedAddress(target), *map, sharedAddress(barrier), {column, row, plane});
}
/** To the same place of every block of the cluster that `ranks` names by bits, each at its own barrier. */
inline void loadBoxToAll(void* target, const TensorMap* map, Barrier* barrier, int column, int row, uint32_t ranks) {
  proxy::loadBox(sharedAddress(target), *map, sharedAddress(barrier), {column, row, 0}, ranks);
}
inline void storeBox(const TensorMap* map, const void* source, int column, int row) {
  proxy::storeBox(*map, sharedAddress(source), {column, row, 0});
}
inline void commitStores() { proxy::commitStores(); }
template <int pending>
inline void waitForStoreReads() {
  proxy::waitForStores(pending);
}
inline void waitForStores() { proxy::waitForStores(0); }

#else

DEVICE void prefetchTensorMap(const TensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

DEVICE void loadBox(void* target, const TensorMap* map, Barrier* barrier, int column, int row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
          sharedAddress(target)),
      "l"(map), "r"(sharedAddress(barrier)), "r"(column), "r"(row)
      : "memory");
}

DEVICE void loadBox(void* target, const TensorMap* map, Barrier* barrier, int column, int row,
                                        int plane) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
      "[%2];" ::"r"(sharedAddress(target)),
      "l"(map), "r"(sharedAddress(barrier)), "r"(column), "r"(row), "r"(plane)
      : "memory");
}

DEVICE void loadBoxToAll(void* target, const TensorMap* map, Barrier* barrier, int column, int row, uint32_t ranks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
      "[%1, {%3, %4}], [%2], %5;" ::"r"(sharedAddress(target)),
      "l"(map), "r"(sharedAddress(barrier)), "r"(column), "r"(row), "h"(static_cast<uint16_t>(ranks))
      : "memory");
}

/** Elements beyond the matrix's edges are not written. */
DEVICE void storeBox(const TensorMap* map, const void* source, int column, int row) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map),
               "r"(sharedAddress(source)), "r"(column), "r"(row)
               : "memory");
}

DEVICE void commitStores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

/** All but the latest `pending` groups of this thread's stores have read their source, which may be written again. */
template <int pending>
DEVICE void waitForStoreReads() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(pending) : "memory");
}

/** All stores of this thread are in global memory. */
DEVICE void waitForStores() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

#endif

}  // namespace variator::cuda::hopper
