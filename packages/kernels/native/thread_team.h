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
#include <vector>

namespace variator {

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
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int threadCount() const { return static_cast<int>(helpers_.size()) + 1; }
  // Runs work(0) .. work(threadCount - 1), work(0) here; returns when all have. `work` must not throw.
  void run(int threadCount, const std::function<void(int)>& work);
  // Called by every thread of the current run, equally often.
  void barrier();

 private:
  void help(int index);
  std::vector<std::thread> helpers_;
  // Run number above the lowest byte, threads of that run in it: one word, so that a late helper reads both as one.
  Gate runs_;
  Gate barriers_;
  std::atomic<int> arrivedCount_{0};
  std::atomic<int> participantCount_{1};
  std::atomic<bool> isStopping_{false};
  const std::function<void(int)>* work_ = nullptr;
};

}  // namespace variator
