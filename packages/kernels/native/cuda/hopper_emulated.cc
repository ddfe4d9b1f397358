// See hopper_emulated.h: the state of a block, and its mbarriers. An mbarrier's eight bytes hold what PTX calls pending and
// expected arrivals, the tx-count and the phase, under a mark that poison does not have.
#include "hopper_emulated.h"

#include <cstring>
#include <string>

#include "../native_fault.h"

namespace variator::cuda::proxy {
namespace {

struct BarrierWord {
  uint64_t mark : 3, phase : 1, expected : 20, pending : 20;
  int64_t bytes : 20;  // below zero where a copy of another block comes before this block expects it
};
constexpr uint64_t initialised = 5;
static_assert(sizeof(BarrierWord) == 8);

BarrierWord* wordIn(emulated::Block& block, uint32_t offset) { return reinterpret_cast<BarrierWord*>(block.shared + offset); }

BarrierWord* wordAt(uint32_t address, bool isInit) {
  emulated::Block& block = blockOf(address);
  checkRange(block, offsetOf(address), 8, "mbarrier");
  if (address % 8 != 0) refuse("an mbarrier must be aligned to 8 bytes");
  BarrierWord* word = wordIn(block, offsetOf(address));
  if (!isInit && word->mark != initialised) refuse("an mbarrier is used that is not initialised");
  return word;
}

void endPhaseWhereComplete(BarrierWord* word) {
  if (word->pending != 0 || word->bytes != 0) return;
  word->phase ^= 1;
  word->pending = word->expected;
}

class State : public emulated::BlockExtension {
 public:
  explicit State(const emulated::Block& block) {
    const auto bytes = static_cast<size_t>(block.shape->sharedBytes);
    const size_t threads = block.threads.size();
    state.asyncView.assign(bytes, 0xff);
    state.granules.resize(bytes / granuleBytes + 1);
    state.lanes.resize(threads);
    state.warpgroupHistory.resize(threads / 128 + 1);
    state.warpProgress.resize(threads / 32 + 1);
  }
  void atEnd(const emulated::Block& block) override {
    const auto check = [](bool isGood, const char* what) {
      if (!isGood) throw NativeFault(std::string("a block ends ") + what);
    };
    for (const Lane& lane : state.lanes) check(lane.operations.empty(), "with a wgmma that nobody waited for");
    for (const auto& [thread, storing] : state.storing) {
      for (const PendingStore& store : storing.stores) check(store.isRead, "while a bulk store still reads its shared memory");
    }
    for (const Granule& granule : state.granules) check(granule.copyWriters == 0, "with a bulk copy into it under way");
    for (const uint32_t address : state.barriers) {
      const auto* word = reinterpret_cast<const BarrierWord*>(block.shared + offsetOf(address));
      check(word->mark != initialised || word->bytes == 0, "with an mbarrier that waits for bytes");
    }
  }
  BlockState state;
};

}  // namespace

void refuse(const std::string& message) { emulated::fail(message); }

BlockState& stateOf(emulated::Block& block) {
  if (block.extension == nullptr) block.extension = std::make_unique<State>(block);
  return static_cast<State*>(block.extension.get())->state;
}

emulated::Block& blockOf(uint32_t address) {
  const auto& cluster = *emulated::self().block->cluster;
  if (address >> 24 >= cluster.size()) refuse("an address names a block outside the cluster");
  return *cluster[address >> 24];
}

void checkRange(const emulated::Block& block, uint32_t offset, uint32_t bytes, const char* what) {
  if (static_cast<int64_t>(offset) + bytes > block.shape->sharedBytes) {
    refuse(std::string(what) + ": beyond the shared memory that the launch asked for");
  }
}

uint32_t sharedAddress(const void* pointer) {
  const emulated::Block& block = *emulated::self().block;
  const auto offset = static_cast<const uint8_t*>(pointer) - block.shared;
  if (offset < 0 || offset > block.shape->sharedBytes) refuse("not an address of this block's shared memory");
  return block.clusterRank << 24 | static_cast<uint32_t>(offset);
}

void barrierInit(uint32_t barrier, uint32_t arrivals) {
  if (arrivals < 1 || arrivals >= 1u << 20) refuse("an mbarrier expects 1 to 2^20 - 1 arrivals");
  BarrierWord* word = wordAt(barrier, true);
  if (word->mark == initialised && word->pending != word->expected) refuse("an mbarrier in use is initialised again");
  *word = BarrierWord{};
  word->mark = initialised;
  word->expected = word->pending = arrivals;
  stateOf(blockOf(barrier)).barriers.push_back(barrier);
}

void barrierArrive(uint32_t barrier, uint32_t expectedBytes) {
  BarrierWord* word = wordAt(barrier, false);
  if (word->bytes + int64_t{expectedBytes} >= 1 << 19) refuse("an mbarrier expects more than the 2^19 - 1 bytes that the emulated device counts");
  if (word->pending == 0) refuse("more threads arrive at an mbarrier than it expects");
  word->bytes += expectedBytes;
  word->pending--;
  endPhaseWhereComplete(word);
  // Whoever was let go by this may run well ahead of what the thread does next: now and then a whole round of a ring.
  const uint32_t turns = emulated::drawBelow(8) == 0 ? 600 : emulated::drawBelow(4);
  for (uint32_t i = 0; i < turns; i++) emulated::yieldToOthers();
}

void completeBytes(emulated::Block& block, uint32_t barrierOffset, uint32_t bytes) {
  BarrierWord* word = wordIn(block, barrierOffset);
  if (word->mark != initialised) throw NativeFault("a bulk copy completes at an mbarrier that is not initialised");
  if (word->pending == 0 && word->bytes < static_cast<int64_t>(bytes)) throw NativeFault("a bulk copy brings more bytes than its mbarrier expects");
  word->bytes -= bytes;
  endPhaseWhereComplete(word);
}

void barrierWait(uint32_t barrier, uint32_t parity) {
  const BarrierWord* word = wordAt(barrier, false);
  if (word->phase != (parity & 1)) {
    if (emulated::drawBelow(4) == 0) emulated::yieldToOthers();
    return;
  }
  emulated::waitUntil("an mbarrier", [word, parity] { return word->phase != (parity & 1); });
}

void publishToAsyncProxy(const void* from, uint32_t bytes) {
  emulated::Block& block = *emulated::self().block;
  const uint32_t offset = offsetOf(sharedAddress(from));
  checkRange(block, offset, bytes, "fence.proxy.async");
  std::memcpy(stateOf(block).asyncView.data() + offset, from, bytes);
}

void syncCluster() {
  emulated::Block& block = *emulated::self().block;
  const uint64_t threads = block.threads.size() * block.cluster->size();
  uint64_t& arrivals = stateOf(*block.cluster->front()).clusterArrivals;
  const uint64_t round = arrivals++ / threads;
  emulated::waitUntil("its cluster", [&arrivals, round, threads] { return arrivals >= (round + 1) * threads; });
}

void setRegisters(uint32_t perThread) {
  if (perThread % 8 != 0 || perThread < 24 || perThread > 256) refuse("setmaxnreg takes a multiple of 8 from 24 to 256");
  emulated::Thread& thread = emulated::self();
  auto& registers = stateOf(*thread.block).registers;
  registers[thread.flat / 128] = perThread;
  uint32_t sum = 0;
  for (const auto& [warpgroup, count] : registers) sum += 128 * count;
  if (sum > 65536) refuse("the warpgroups of a block ask for more than 65536 registers");
}

}  // namespace variator::cuda::proxy
