// The asynchronous half of an emulated sm_90a block: mbarriers, bulk copies and wgmma, as their PTX descriptions say, with
// everything a device would get wrong made visible. Kernels reach it through hopper_barrier.h, hopper_tma.h and
// hopper_wgmma.h alone. Asynchronous readers see a second copy of shared memory (`asyncView`) that ordinary stores reach
// only through fence.proxy.async; 16-byte granules know who is reading or writing them, and a clash ends the launch.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <vector>

#include "emulator.h"
#include "hopper_tensor_map.h"

namespace variator::cuda::proxy {

/** As on the device an address names the block of the cluster, too: its rank in the bits from 24 on. */
uint32_t sharedAddress(const void* pointer);

void barrierInit(uint32_t barrier, uint32_t arrivals);
void barrierArrive(uint32_t barrier, uint32_t expectedBytes);
void barrierWait(uint32_t barrier, uint32_t parity);
void publishToAsyncProxy(const void* from, uint32_t bytes);
void setRegisters(uint32_t perThread);
void syncCluster();

using Coordinates = std::array<int, 3>;
/** To every block of `multicast` (bits by rank) at the same place; 0: to the block that `target` names. */
void loadBox(uint32_t target, const TensorMap& map, uint32_t barrier, Coordinates at, uint32_t multicast = 0);
void storeBox(const TensorMap& map, uint32_t source, Coordinates at);
void commitStores();
void waitForStores(uint32_t pendingGroups);

struct WgmmaCall {
  int n, elementBytes;
  uint64_t descA;
  const uint32_t* a;  // four registers, or null: A is in shared memory
  uint64_t descB;
  bool isMnMajorA, isMnMajorB, accumulates;
};
void wgmma(const WgmmaCall& call, float* d);
void wgmmaFence();
void wgmmaCommit();
void wgmmaWait(uint32_t pendingGroups);

// --- within hopper_emulated_*.cc ---

constexpr uint32_t granuleBytes = 16;

struct Granule {
  uint16_t wgmmaReaders = 0;
  uint8_t copyWriters = 0, storeReaders = 0;
};

struct WgmmaOperation {
  WgmmaCall call;
  uint32_t a[4];
  float* d;
  uint32_t group;
  uint64_t operandsHash;  // of lane 0
};

struct Accumulator {
  float* registers;
  int inFlight;
  std::array<float, 128> values;
};

struct Lane {
  std::vector<WgmmaOperation> operations;
  std::vector<Accumulator> accumulators;
  uint32_t openGroup = 0;
  bool isFenced = false;
};

struct PendingStore {
  TensorMap map;
  uint32_t source;
  Coordinates at;
  uint32_t group;
  bool isRead;
};

struct StoringThread {
  std::vector<PendingStore> stores;
  uint32_t openGroup = 0;
};

/** What one block's asynchronous accesses have under way. */
struct BlockState {
  std::vector<uint8_t> asyncView;
  std::vector<Granule> granules;
  std::vector<Lane> lanes;                              // [thread]
  std::vector<std::vector<uint64_t>> warpgroupHistory;  // [warpgroup]: what its first warp executed, to compare the others
  std::vector<size_t> warpProgress;                     // [warp]
  std::map<uint32_t, StoringThread> storing;            // by thread
  std::map<uint32_t, uint32_t> registers;               // by warpgroup
  std::vector<uint32_t> barriers;                       // addresses of those initialised
  uint64_t clusterArrivals = 0;                         // at syncCluster, in the state of the cluster's first block
};

BlockState& stateOf(emulated::Block& block);
emulated::Block& blockOf(uint32_t address);
inline uint32_t offsetOf(uint32_t address) { return address & 0xffffff; }
/** Throws where [offset, offset + bytes) leaves the block's shared memory. */
void checkRange(const emulated::Block& block, uint32_t offset, uint32_t bytes, const char* what);
void completeBytes(emulated::Block& block, uint32_t barrierOffset, uint32_t bytes);
/** The address that a swizzle of 128, 64, 32 or 0 bytes puts `address` at; PTX ISA, "Swizzling Modes". */
constexpr uint32_t swizzled(uint32_t address, uint32_t swizzleBytes) {
  return swizzleBytes == 0 ? address : address ^ (address >> 7 & (swizzleBytes / 16 - 1)) << 4;
}
/** Ends the launch; for code on a thread's stack. What runs by itself, later, throws NativeFault. */
[[noreturn]] void refuse(const std::string& message);

}  // namespace variator::cuda::proxy
