// See emulator.h. One OS thread runs everything; a launch is a loop that draws the next thread, something hardware would
// do by itself, or a waiting thread whose predicate may have come true.
#include "emulator.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "../native_fault.h"
#include "fiber.h"

namespace variator::cuda::emulated {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t stackBytes = 256 << 10;
#else
constexpr size_t stackBytes = 64 << 10;
#endif

struct Later {
  std::function<void()> work;
  uint64_t order;
};

// Of the blocks that run together.
struct Scheduler {
  const std::function<void()>* body = nullptr;
  uint64_t random = 1;
  std::vector<Thread*> ready, polling;
  std::vector<Later> later;
  Thread* running = nullptr;
  uint64_t doneCount = 0;
  std::string fault;
  bool isAbandoned = false;  // every thread unwinds its stack and ends

  uint32_t below(uint32_t bound) {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    return static_cast<uint32_t>((random >> 32) * bound >> 32);
  }
};

thread_local Scheduler* scheduler = nullptr;

struct FiberPool {
  std::vector<std::unique_ptr<Fiber>> fibers;
  size_t used = 0;
  Fiber* next() {
    if (used == fibers.size()) fibers.push_back(std::make_unique<Fiber>(stackBytes));
    return fibers[used++].get();
  }
};
thread_local FiberPool pool;

// Unwinds a thread's stack; caught where the stack began.
struct Abandoned {};

void block(const char* what) {
  Thread* thread = scheduler->running;
  thread->waitsFor = what;
  thread->fiber->giveWay();
  thread->waitsFor = nullptr;
  if (scheduler->isAbandoned) throw Abandoned{};
}

void enter(void*) {
  Thread& thread = self();
  try {
    if (!scheduler->isAbandoned) (*scheduler->body)();
    // Copies that nobody waited for land all the same, as on the device: they must not go out of bounds.
    commitCopies();
    if (!scheduler->isAbandoned) waitForCopies(0);
  } catch (const Abandoned&) {
  }
  thread.isDone = true;
  scheduler->doneCount++;
}

uint64_t mixBits(uint64_t bits) {
  bits += 0x9e3779b97f4a7c15ull;
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9ull;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebull;
  return bits ^ (bits >> 31);
}

std::string placeOf(const Thread& thread) {
  const Size3& b = thread.block->index;
  return "block (" + std::to_string(b.x) + ", " + std::to_string(b.y) + ", " + std::to_string(b.z) + "), thread " +
         std::to_string(thread.flat);
}

std::string deadlock(const std::vector<Block*>& blocks) {
  std::string message = "nothing can go on:";
  int named = 0;
  for (const Block* one : blocks) {
    for (const Thread& thread : one->threads) {
      if (thread.isDone || named++ >= 4) continue;
      message += " " + placeOf(thread) + " waits for " + (thread.waitsFor ? thread.waitsFor : "?") + ";";
    }
  }
  uint64_t waiting = 0;
  for (const Block* one : blocks) {
    for (const Thread& thread : one->threads) waiting += thread.isDone ? 0 : 1;
  }
  return message + " " + std::to_string(waiting) + " threads wait in all";
}

void doLater() {
  auto& later = scheduler->later;
  size_t at = scheduler->below(static_cast<uint32_t>(later.size()));
  if (later[at].order != 0) {
    for (size_t i = 0; i < at; i++) {
      if (later[i].order == later[at].order) at = i;
    }
  }
  const auto work = std::move(later[at].work);
  later.erase(later.begin() + static_cast<std::ptrdiff_t>(at));
  work();
}

// True where one of those who poll may go on.
bool poll(bool all) {
  auto& polling = scheduler->polling;
  const uint32_t start = scheduler->below(static_cast<uint32_t>(polling.size()));
  const size_t count = all ? polling.size() : 1;
  for (size_t i = 0; i < count; i++) {
    const size_t at = (start + i) % polling.size();
    Thread* thread = polling[at];
    if (!thread->test(thread->testArgument)) continue;
    polling[at] = polling.back();
    polling.pop_back();
    scheduler->ready.push_back(thread);
    return true;
  }
  return false;
}

void runTogether(const std::vector<Block*>& blocks, uint64_t threadCount) {
  auto& s = *scheduler;
  while (s.doneCount < threadCount) {
    if (!s.later.empty() && (s.ready.empty() ? s.polling.empty() : s.below(8) == 0)) doLater();
    if (!s.polling.empty() && (s.ready.empty() || s.below(4) == 0)) poll(s.ready.empty());
    if (s.ready.empty()) {
      if (s.later.empty()) throw NativeFault(deadlock(blocks));
      doLater();
      continue;
    }
    const uint32_t at = s.below(static_cast<uint32_t>(s.ready.size()));
    s.running = s.ready[at];
    s.ready[at] = s.ready.back();
    s.ready.pop_back();
    s.running->fiber->resume();
    s.running = nullptr;
    if (!s.fault.empty()) throw NativeFault(s.fault);
  }
  while (!s.later.empty()) doLater();
}

void abandon(const std::vector<Block*>& blocks) {
  scheduler->isAbandoned = true;
  for (Block* one : blocks) {
    for (Thread& thread : one->threads) {
      if (thread.isDone) continue;
      scheduler->running = &thread;
      thread.fiber->resume();
    }
  }
  scheduler->later.clear();
}

void land(const PendingCopy& copy) {
  std::memcpy(copy.to, copy.from, copy.validBytes);
  std::memset(static_cast<uint8_t*>(copy.to) + copy.validBytes, 0, copy.bytes - copy.validBytes);
}

}  // namespace

Thread& self() { return *scheduler->running; }

uint32_t drawBelow(uint32_t bound) { return scheduler->below(bound); }

void fail(const std::string& message) {
  scheduler->fault = placeOf(self()) + ": " + message;
  throw Abandoned{};
}

void yieldToOthers() {
  scheduler->ready.push_back(&self());
  block("its turn");
}

void waitUntilRaw(const char* what, bool (*isTrue)(void*), void* argument) {
  Thread& thread = self();
  thread.test = isTrue;
  thread.testArgument = argument;
  scheduler->polling.push_back(&thread);
  block(what);
}

void postLater(std::function<void()> work, uint64_t order) { scheduler->later.push_back({std::move(work), order}); }

void gatherWarp(const char* operation, uint32_t mask, const void* in, void* out, void (*compute)(Gathering&)) {
  Thread& thread = self();
  const uint32_t lane = thread.flat % warpSize;
  if ((mask >> lane & 1) == 0) fail(std::string(operation) + ": the lane is not in its own mask");
  auto& gatherings = thread.block->gatherings[thread.flat / warpSize];
  auto found = std::find_if(gatherings.begin(), gatherings.end(), [&](const Gathering& one) { return (one.mask & mask) != 0; });
  if (found == gatherings.end()) {
    gatherings.emplace_back();
    found = gatherings.end() - 1;
    found->mask = mask;
    found->operation = operation;
  }
  if (found->mask != mask || std::strcmp(found->operation, operation) != 0) {
    fail(std::string(operation) + ": other lanes of the warp are at " + found->operation);
  }
  found->arrived |= 1u << lane;
  found->in[lane] = in;
  found->out[lane] = out;
  found->threads[lane] = &thread;
  if (found->arrived != mask) {
    block(operation);
    return;
  }
  compute(*found);
  for (uint32_t i = 0; i < warpSize; i++) {
    if (i != lane && (mask >> i & 1)) scheduler->ready.push_back(found->threads[i]);
  }
  *found = gatherings.back();
  gatherings.pop_back();
}

namespace {

bool completes(Barrier& barrier, uint32_t count) {
  const Thread& thread = self();
  const auto all = static_cast<uint32_t>(thread.block->threads.size());
  const uint32_t expected = count == 0 ? all : count;
  if (expected % warpSize != 0 && expected != all) fail("a barrier takes whole warps");
  if (barrier.arrived > 0 && barrier.expected != expected) fail("threads came to one barrier with different counts");
  barrier.expected = expected;
  if (++barrier.arrived < expected) return false;
  barrier.arrived = 0;
  for (Thread* waiting : barrier.waiting) scheduler->ready.push_back(waiting);
  barrier.waiting.clear();
  return true;
}

}  // namespace

void waitAtBarrier(uint32_t id, uint32_t count) {
  Thread& thread = self();
  if (id >= mostBarriers) fail("there is no barrier " + std::to_string(id));
  Barrier& barrier = thread.block->barriers[id];
  if (completes(barrier, count)) {
    yieldToOthers();
    return;
  }
  barrier.waiting.push_back(&thread);
  block("a barrier of its block");
}

void arriveAtBarrier(uint32_t id, uint32_t count) {
  if (id >= mostBarriers) fail("there is no barrier " + std::to_string(id));
  completes(self().block->barriers[id], count);
}

void issueCopy(const PendingCopy& copy) {
  Thread& thread = self();
  // It may be there at once, or not before it is waited for.
  if (drawBelow(2) == 0) {
    land(copy);
    return;
  }
  thread.copies.push_back(copy);
  thread.copies.back().group = thread.openGroup;
}

void commitCopies() { self().openGroup++; }

void waitForCopies(uint32_t groupsStillPending) {
  Thread& thread = self();
  auto& copies = thread.copies;
  // Of all committed groups only the last `groupsStillPending` may still be under way; an open group is not waited for.
  const auto isDue = [&](const PendingCopy& copy) {
    return copy.group + groupsStillPending < thread.openGroup;
  };
  for (const PendingCopy& copy : copies) {
    if (isDue(copy)) land(copy);
  }
  copies.erase(std::remove_if(copies.begin(), copies.end(), isDue), copies.end());
}

void runLaunch(const char* name, const LaunchShape& shape, const std::function<void()>& body, uint64_t seed) {
  const auto threadCount = static_cast<uint32_t>(shape.block.count());
  const auto check = [&](bool isGood, const char* what) {
    if (!isGood) throw NativeFault(std::string(name) + ": " + what);
  };
  // What a launch on sm_90 is refused for.
  check(threadCount >= 1 && threadCount <= 1024, "a block has 1 to 1024 threads");
  check(shape.sharedBytes >= 0 && shape.sharedBytes <= 227 << 10, "a block has at most 227 KiB of shared memory");
  check(shape.grid.count() >= 1 && shape.grid.y <= 65535 && shape.grid.z <= 65535, "the grid is empty or too large");
  check(shape.cluster.count() >= 1 && shape.cluster.count() <= 16, "a cluster has 1 to 16 blocks");
  check(shape.grid.x % shape.cluster.x == 0 && shape.grid.y % shape.cluster.y == 0 && shape.grid.z % shape.cluster.z == 0,
        "the grid must be a multiple of the cluster");

  // A launch inside a launch cannot be: the scheduler is one per OS thread.
  Scheduler own;
  own.body = &body;
  scheduler = &own;
  struct Restore {
    ~Restore() {
      scheduler = nullptr;
      pool.used = 0;
    }
  } restore;

  const Size3& cluster = shape.cluster;
  const Size3 clusters{shape.grid.x / cluster.x, shape.grid.y / cluster.y, shape.grid.z / cluster.z};
  std::vector<Block> blocks(cluster.count());
  std::vector<Block*> together;
  std::vector<std::unique_ptr<uint8_t, void (*)(void*)>> shareds;
  for (Block& one : blocks) {
    together.push_back(&one);
    // As much as was asked for and no more, so that AddressSanitizer sees an access beyond it.
    void* shared = nullptr;
    if (posix_memalign(&shared, 1024, static_cast<size_t>(std::max<int64_t>(shape.sharedBytes, 1))) != 0) throw std::bad_alloc();
    shareds.emplace_back(static_cast<uint8_t*>(shared), &std::free);
    one.shared = shareds.back().get();
    one.shape = &shape;
    one.cluster = &together;
    one.threads.resize(threadCount);
    one.gatherings.resize((threadCount + warpSize - 1) / warpSize);
  }
  for (uint64_t c = 0; c < clusters.count(); c++) {
    const Size3 at{static_cast<uint32_t>(c % clusters.x), static_cast<uint32_t>(c / clusters.x % clusters.y),
                   static_cast<uint32_t>(c / clusters.x / clusters.y)};
    own.random = mixBits(seed ^ mixBits(c)) | 1;
    own.doneCount = 0;
    own.ready.clear();
    own.polling.clear();
    pool.used = 0;
    for (uint32_t rank = 0; rank < blocks.size(); rank++) {
      Block& one = blocks[rank];
      one.clusterRank = rank;
      one.clusterIndex = {rank % cluster.x, rank / cluster.x % cluster.y, rank / cluster.x / cluster.y};
      one.index = {at.x * cluster.x + one.clusterIndex.x, at.y * cluster.y + one.clusterIndex.y, at.z * cluster.z + one.clusterIndex.z};
      std::memset(one.shared, 0xff, static_cast<size_t>(shape.sharedBytes));
      one.extension.reset();
      one.statics.clear();
      for (Barrier& barrier : one.barriers) barrier = Barrier{};
      for (uint32_t t = 0; t < threadCount; t++) {
        Thread& thread = one.threads[t];
        thread.index = {t % shape.block.x, t / shape.block.x % shape.block.y, t / shape.block.x / shape.block.y};
        thread.flat = t;
        thread.block = &one;
        thread.copies.clear();
        thread.openGroup = 0;
        thread.isDone = false;
        thread.waitsFor = nullptr;
        thread.fiber = pool.next();
        thread.fiber->begin(&enter, nullptr);
        own.ready.push_back(&thread);
      }
    }
    try {
      runTogether(together, uint64_t{threadCount} * blocks.size());
      for (Block& one : blocks) {
        if (one.extension != nullptr) one.extension->atEnd(one);
      }
    } catch (const NativeFault& fault) {
      abandon(together);
      throw NativeFault(std::string(name) + " (emulated, seed " + std::to_string(seed) + "): " + fault.what());
    }
  }
}

}  // namespace variator::cuda::emulated
