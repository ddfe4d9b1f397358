// A CUDA device in plain C++, for tests: the blocks of a launch run one after another (those of a cluster together), each
// thread of a block on a stack of its own, and who runs next between two waits is drawn from a seed, so that a race shows
// as a wrong value under some seed. Used by emulated_device.h (what kernels call) and runtime_emulated.cc (launches).
// Says nothing about speed, and refuses what a device would hang on: barriers that not all reach, misaligned accesses.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "launch_shape.h"

namespace variator::cuda {

namespace emulated {

constexpr uint32_t warpSize = 32, mostBarriers = 16;

class Fiber;
struct Block;

// One cp.async that has been issued and not waited for.
struct PendingCopy {
  void* to;
  const void* from;
  uint32_t bytes, validBytes;
  uint32_t group;  // of the thread's commit groups
};

struct Thread {
  Size3 index{0, 0, 0};
  uint32_t flat = 0;  // of the block's threads
  Block* block = nullptr;
  std::vector<PendingCopy> copies;
  uint32_t openGroup = 0;  // commit group that a copy issued now belongs to
  // What a waiting thread waits for, for messages and polling.
  const char* waitsFor = nullptr;
  bool (*test)(void*) = nullptr;
  void* testArgument = nullptr;
  bool isDone = false;
  Fiber* fiber = nullptr;
};

// Lanes that have come to a warp-wide operation and wait for the rest of `mask`.
struct Gathering {
  uint32_t mask = 0, arrived = 0;
  const char* operation = nullptr;
  const void* in[warpSize];
  void* out[warpSize];
  Thread* threads[warpSize];
};

struct Barrier {
  uint32_t expected = 0, arrived = 0;
  std::vector<Thread*> waiting;
};

// What the asynchronous half of a block keeps while it runs (hopper_emulated.cc).
struct BlockExtension {
  virtual ~BlockExtension() = default;
  // When all threads of the block are done; throws NativeFault where something was left under way.
  virtual void atEnd(const Block& block) = 0;
};

struct Block {
  Size3 index{0, 0, 0};
  Size3 clusterIndex{0, 0, 0};        // of the block within its cluster
  uint32_t clusterRank = 0;
  std::vector<Block*>* cluster = nullptr;  // all blocks that run together, by rank
  const LaunchShape* shape = nullptr;
  uint8_t* shared = nullptr;          // [shape->sharedBytes], poisoned at the start
  std::vector<Thread> threads;
  std::vector<std::vector<Gathering>> gatherings;  // [warp]
  Barrier barriers[mostBarriers];
  std::unique_ptr<BlockExtension> extension;
  // Static shared memory by the address of its declaration (staticShared in emulated_device.h).
  std::vector<std::pair<const void*, std::unique_ptr<uint8_t[]>>> statics;
};

// The thread whose code is running.
Thread& self();

// --- for those who write device operations ---

// Lets others run until `isTrue` holds. It is called on the scheduler's stack, where self() is not the waiting thread, any
// number of times; `what` names it in the message of a deadlock.
void waitUntilRaw(const char* what, bool (*isTrue)(void*), void* argument);
template <typename Predicate>
void waitUntil(const char* what, Predicate isTrue) {
  waitUntilRaw(what, [](void* argument) { return (*static_cast<Predicate*>(argument))(); }, &isTrue);
}
// Something that hardware does by itself at some later time: it is done at a random moment, at the latest when nobody
// else can run. Those posted with the same `order` (not 0) are done in the order they were posted in.
void postLater(std::function<void()> work, uint64_t order = 0);
// A number below `bound`, from the launch's seed.
uint32_t drawBelow(uint32_t bound);
// Lets others run for a moment.
void yieldToOthers();
// Ends the launch with a message that names block and thread.
[[noreturn]] void fail(const std::string& message);

// All lanes of `mask` bring `in` and wait; the last to come runs `compute(gathering)`, which fills every lane's `out`.
void gatherWarp(const char* operation, uint32_t mask, const void* in, void* out, void (*compute)(Gathering&));
// Barrier `id` of the block, complete when `count` threads have come (0: all of the block).
void waitAtBarrier(uint32_t id, uint32_t count);
void arriveAtBarrier(uint32_t id, uint32_t count);

// cp.async and its groups; see emulated_device.h.
void issueCopy(const PendingCopy& copy);
void commitCopies();
void waitForCopies(uint32_t groupsStillPending);

// --- for runtime_emulated.cc ---

// Runs every block; throws NativeFault with the kernel's name where one fails.
void runLaunch(const char* name, const LaunchShape& shape, const std::function<void()>& body, uint64_t seed);

}  // namespace emulated
}  // namespace variator::cuda
