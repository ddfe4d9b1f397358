// A pool of threads that run one function side by side, with barriers inside it. The calling thread is number 0.
// Waiting threads spin briefly (a step has hundreds of barriers), then sleep, so that a crowded machine is not starved.
// Owned by Engine; used by its compute thread alone.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace variator {

// Between two looks at a word that another thread is about to change.
static inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// A number that only grows; others wait for it to leave a value.
class Gate {
 public:
  uint32_t value() const { return value_.load(std::memory_order_acquire); }
  void set(uint32_t value);
  // Spins for so long, then sleeps.
  void waitWhile(uint32_t value, std::chrono::microseconds spin);

 private:
  std::atomic<uint32_t> value_{0};
  std::atomic<int> sleeperCount_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
};

class ThreadTeam {
 public:
  static constexpr int maxThreadCount = 128;
  explicit ThreadTeam(int threadCount);
  ~ThreadTeam() { stop(); }
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int threadCount() const { return static_cast<int>(helpers_.size()) + 1; }
  // Runs work(0) .. work(threadCount - 1), work(0) here; returns when all have. `work` must not throw.
  void run(int threadCount, const std::function<void(int)>& work);
  // What assistants do, from then on and until the team stops.
  void setAssistance(std::function<void(int)> assistance) { assistance_ = std::move(assistance); }
  // Lets threads 1 .. assistantCount do it, and returns at once. They are back when they are: the next run waits for those it
  // needs, nothing else does.
  void callAssistants(int assistantCount);
  // Ends the threads; nothing runs afterwards.
  void stop();
  // Called by every thread of the current run, equally often.
  void barrier();

 private:
  void help(int index);
  std::vector<std::thread> helpers_;
  // Threads of a run in the lowest byte, above it whether they only assist, above that the run's number: one word, so that a late
  // helper reads all as one.
  Gate runs_;
  Gate barriers_;
  std::atomic<int> arrivedCount_{0};
  std::atomic<int> participantCount_{1};
  std::atomic<bool> isStopping_{false};
  const std::function<void(int)>* work_ = nullptr;
  std::function<void(int)> assistance_;
  void start(int threadCount, bool isAssistance);
  // Keeps the other threads from the processor that this one runs on: an assistant must not push the one aside that it helps.
  void clearProcessor();
  void restoreProcessors();
  int clearedProcessor_ = -1;
};

}  // namespace variator
