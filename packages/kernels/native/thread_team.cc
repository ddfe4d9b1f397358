// See thread_team.h.
#include "thread_team.h"

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace variator {
namespace {

// Between runs.
constexpr auto shortSpin = std::chrono::microseconds(40);
// At a barrier, longer than a sleeping thread takes to wake up (50 to 100 us): else one that came late, and so found the others
// asleep, goes on without them and falls asleep at the next barrier before they come, and so on to the step's end.
constexpr auto barrierSpin = std::chrono::microseconds(250);

}  // namespace

void Gate::set(uint32_t value) {
  value_.store(value, std::memory_order_seq_cst);
  if (sleeperCount_.load(std::memory_order_seq_cst) == 0) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  changed_.notify_all();
}

void Gate::waitWhile(uint32_t value, std::chrono::microseconds spin) {
  for (int i = 0; i < 64; i++) {
    if (this->value() != value) return;
    relax();
  }
  const auto end = std::chrono::steady_clock::now() + spin;
  while (std::chrono::steady_clock::now() < end) {
    for (int i = 0; i < 16; i++) {
      if (this->value() != value) return;
      relax();
    }
  }
  std::unique_lock<std::mutex> lock(mutex_);
  sleeperCount_.fetch_add(1, std::memory_order_seq_cst);
  changed_.wait(lock, [&] { return value_.load(std::memory_order_seq_cst) != value; });
  sleeperCount_.fetch_sub(1, std::memory_order_seq_cst);
}

ThreadTeam::ThreadTeam(int threadCount) {
  for (int index = 1; index < threadCount; index++) helpers_.emplace_back([this, index] { help(index); });
}

void ThreadTeam::stop() {
  isStopping_.store(true);
  start(0, false);
  for (auto& helper : helpers_) {
    if (helper.joinable()) helper.join();
  }
}

void ThreadTeam::start(int threadCount, bool isAssistance) {
  runs_.set(((runs_.value() >> 9) + 1) << 9 | (isAssistance ? 256u : 0u) | static_cast<uint32_t>(threadCount));
}

void ThreadTeam::clearProcessor() {
#if defined(__linux__)
  const int processor = sched_getcpu();
  if (processor < 0 || processor == clearedProcessor_) return;
  cpu_set_t others;
  if (sched_getaffinity(0, sizeof others, &others) != 0) return;
  CPU_CLR(static_cast<size_t>(processor), &others);
  if (CPU_COUNT(&others) == 0) return;
  for (auto& helper : helpers_) pthread_setaffinity_np(helper.native_handle(), sizeof others, &others);
  clearedProcessor_ = processor;
#endif
}

void ThreadTeam::restoreProcessors() {
#if defined(__linux__)
  cpu_set_t own;
  if (sched_getaffinity(0, sizeof own, &own) != 0) return;
  for (auto& helper : helpers_) pthread_setaffinity_np(helper.native_handle(), sizeof own, &own);
  clearedProcessor_ = -1;
#endif
}

void ThreadTeam::callAssistants(int assistantCount) {
  clearProcessor();
  participantCount_.store(1, std::memory_order_relaxed);
  start(assistantCount + 1, true);
}

void ThreadTeam::run(int threadCount, const std::function<void(int)>& work) {
  participantCount_.store(threadCount, std::memory_order_relaxed);
  if (threadCount > 1) {
    if (clearedProcessor_ >= 0) restoreProcessors();
    work_ = &work;
    start(threadCount, false);
  }
  work(0);
  barrier();
}

void ThreadTeam::barrier() {
  const int participantCount = participantCount_.load(std::memory_order_relaxed);
  if (participantCount == 1) return;
  const uint32_t number = barriers_.value();
  if (arrivedCount_.fetch_add(1, std::memory_order_acq_rel) + 1 == participantCount) {
    arrivedCount_.store(0, std::memory_order_relaxed);
    barriers_.set(number + 1);
    return;
  }
  barriers_.waitWhile(number, barrierSpin);
}

void ThreadTeam::help(int index) {
  uint32_t seen = 0;
  for (;;) {
    runs_.waitWhile(seen, shortSpin);
    seen = runs_.value();
    if (isStopping_.load()) return;
    if (index >= static_cast<int>(seen & 255u)) continue;
    if ((seen & 256u) != 0) {
      assistance_(index);
      continue;
    }
    (*work_)(index);
    barrier();
  }
}

}  // namespace variator
