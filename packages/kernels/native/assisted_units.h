// Units of work that one thread (the owner) goes through, region after region, while assistants take some off its hands. The
// owner never waits for an assistant that has lost its processor: a unit that does not come back is computed again, and whoever is first to
// commit it wins. So a processor that is half taken by another process still gives its other half. Used by StepRunner.
//
// `next_` names the region (its epoch) and the next free unit in one word. An assistant copies the region's description, then
// takes a unit by exchanging that word: where it was still the same, the copy was whole. What it computes goes into memory of its
// own; only after it has taken the unit's state, tagged with the epoch, may it write where others read.
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "thread_team.h"

namespace variator {

template <typename Region>
class AssistedUnits {
  static_assert(std::is_trivially_copyable<Region>::value, "assistants copy it while it may be written");

 public:
  static constexpr uint32_t mostUnits = 4096;

  // The owner's: from now on `assist` stays and helps, until `end`.
  void begin() { isOver_.store(false); }
  void end() {
    isOver_.store(true);
    changes_.set(changes_.value() + 1);
  }
  // Waits until no assistant is in the middle of a unit: before memory that units read is moved.
  void quiesce() {
    while (busyCount_.load() > 0) std::this_thread::yield();
  }

  // The owner's: `compute(region, unit)` fills memory of the calling thread, `commit(region, unit)` brings it where it belongs.
  template <typename Compute, typename Commit>
  void run(const Region& region, uint32_t unitCount, const Compute& compute, const Commit& commit) {
    const uint32_t epoch = ++epoch_;
    region_ = region;
    unitCount_ = unitCount;
    for (uint32_t unit = 0; unit < unitCount; unit++) states_[unit].store(stateOf(epoch, free), std::memory_order_relaxed);
    next_.store(wordOf(epoch, 0), std::memory_order_release);
    changes_.set(changes_.value() + 1);
    const auto finish = [&](uint32_t unit) {
      compute(region, unit);
      uint32_t expected = stateOf(epoch, free);
      if (!states_[unit].compare_exchange_strong(expected, stateOf(epoch, taken), std::memory_order_acq_rel)) return;
      commit(region, unit);
      states_[unit].store(stateOf(epoch, done), std::memory_order_release);
    };
    for (uint64_t word = next_.load(std::memory_order_relaxed); unitOf(word) < unitCount;) {
      if (!next_.compare_exchange_weak(word, word + 1, std::memory_order_acq_rel)) continue;
      finish(unitOf(word));
      word = next_.load(std::memory_order_relaxed);
    }
    next_.store(wordOf(epoch, closed), std::memory_order_release);
    const auto patienceEnd = std::chrono::steady_clock::now() + patience;
    for (uint32_t unit = 0; unit < unitCount; unit++) {
      for (;;) {
        const uint32_t state = states_[unit].load(std::memory_order_acquire);
        if (state == stateOf(epoch, done)) break;
        if (state == stateOf(epoch, free) && std::chrono::steady_clock::now() > patienceEnd) finish(unit);
        else relax();
      }
    }
  }

  // An assistant's: takes units until `end`. `compute` and `commit` as above.
  template <typename Compute, typename Commit>
  void assist(const Compute& compute, const Commit& commit) {
    uint32_t seen = changes_.value();
    while (!isOver_.load()) {
      busyCount_.fetch_add(1);
      while (takeOne(compute, commit)) {
      }
      busyCount_.fetch_sub(1);
      changes_.waitWhile(seen, spin);
      seen = changes_.value();
    }
  }

 private:
  static constexpr uint32_t free = 0, taken = 1, done = 2, closed = 0xffffffffu;
  // About what a unit takes: an assistant that is longer has most likely lost its processor.
  static constexpr auto patience = std::chrono::microseconds(30);
  static constexpr auto spin = std::chrono::microseconds(250);

  static uint32_t stateOf(uint32_t epoch, uint32_t state) { return epoch << 2 | state; }
  static uint64_t wordOf(uint32_t epoch, uint32_t unit) { return uint64_t{epoch} << 32 | unit; }
  static uint32_t unitOf(uint64_t word) { return static_cast<uint32_t>(word); }

  template <typename Compute, typename Commit>
  bool takeOne(const Compute& compute, const Commit& commit) {
    uint64_t word = next_.load(std::memory_order_acquire);
    const uint32_t unit = unitOf(word), epoch = static_cast<uint32_t>(word >> 32);
    if (unit == closed) return false;
    Region region;
    std::memcpy(static_cast<void*>(&region), static_cast<const void*>(&region_), sizeof region);
    if (unit >= unitCount_) return false;
    if (!next_.compare_exchange_strong(word, word + 1, std::memory_order_acq_rel)) return true;
    compute(region, unit);
    uint32_t expected = stateOf(epoch, free);
    if (!states_[unit].compare_exchange_strong(expected, stateOf(epoch, taken), std::memory_order_acq_rel)) return true;
    commit(region, unit);
    states_[unit].store(stateOf(epoch, done), std::memory_order_release);
    return true;
  }

  Region region_{};
  std::atomic<uint32_t> unitCount_{0};
  uint32_t epoch_ = 0;
  std::atomic<uint64_t> next_{wordOf(0, closed)};
  std::vector<std::atomic<uint32_t>> states_ = std::vector<std::atomic<uint32_t>>(mostUnits);
  Gate changes_;
  std::atomic<bool> isOver_{true};
  std::atomic<int> busyCount_{0};
};

}  // namespace variator
