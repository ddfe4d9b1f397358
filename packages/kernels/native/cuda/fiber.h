// A stack that code runs on until it gives way, for the emulated threads of emulator.cc. Switches by hand on x86-64 and
// by ucontext elsewhere; tells AddressSanitizer where the stacks are. Refuses exceptions across a switch: none may leave
// the code that a fiber runs.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace variator::cuda::emulated {

class Fiber {
 public:
  explicit Fiber(size_t stackBytes);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next resume() runs `entry(argument)` from its beginning; what the fiber was in before is forgotten.
  void begin(void (*entry)(void*), void* argument);
  // Runs the fiber until it gives way or its entry returns; called by the scheduler alone.
  void resume();
  // Back to whoever called resume(); called on the fiber.
  void giveWay();
  bool isFinished() const { return isFinished_; }

 private:
  static void run(Fiber* fiber);
  [[noreturn]] void finish();

  size_t stackBytes_;
  uint8_t* stack_;
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
  bool isFinished_ = true;
#if defined(__x86_64__)
  void* own_ = nullptr;
  void* scheduler_ = nullptr;
#else
  ucontext_t own_{}, scheduler_{};
#endif
  // What AddressSanitizer keeps of the stacks.
  void* ownFake_ = nullptr;
  void* schedulerFake_ = nullptr;
  const void* schedulerStack_ = nullptr;
  size_t schedulerStackBytes_ = 0;
};

}  // namespace variator::cuda::emulated
