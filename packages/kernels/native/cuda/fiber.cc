// See fiber.h.
#include "fiber.h"

#include <cstdlib>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define VARIATOR_ASAN(statement) statement
#else
#define VARIATOR_ASAN(statement)
#endif

namespace variator::cuda::emulated {

#if defined(__x86_64__)
// Saves what a call must keep, exchanges the stacks, and returns on the other one.
extern "C" void variatorSwitchStack(void** saved, void* next);
asm(R"(
.text
.globl variatorSwitchStack
.hidden variatorSwitchStack
.type variatorSwitchStack, @function
variatorSwitchStack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size variatorSwitchStack, .-variatorSwitchStack
.globl variatorFiberEntry
.hidden variatorFiberEntry
.type variatorFiberEntry, @function
variatorFiberEntry:
  movq %r12, %rdi
  call *%r13
  ud2
.size variatorFiberEntry, .-variatorFiberEntry
)");
extern "C" void variatorFiberEntry();
#endif

Fiber::Fiber(size_t stackBytes) : stackBytes_(stackBytes), stack_(static_cast<uint8_t*>(std::aligned_alloc(64, stackBytes))) {
  if (stack_ == nullptr) throw std::bad_alloc();
}

Fiber::~Fiber() { std::free(stack_); }

void Fiber::run(Fiber* fiber) {
  VARIATOR_ASAN(__sanitizer_finish_switch_fiber(nullptr, &fiber->schedulerStack_, &fiber->schedulerStackBytes_));
  fiber->entry_(fiber->argument_);
  fiber->finish();
}

void Fiber::finish() {
  isFinished_ = true;
  VARIATOR_ASAN(__sanitizer_start_switch_fiber(nullptr, schedulerStack_, schedulerStackBytes_));
#if defined(__x86_64__)
  variatorSwitchStack(&own_, scheduler_);
#else
  swapcontext(&own_, &scheduler_);
#endif
  std::abort();
}

void Fiber::begin(void (*entry)(void*), void* argument) {
  entry_ = entry;
  argument_ = argument;
  isFinished_ = false;
  ownFake_ = nullptr;
  VARIATOR_ASAN(__asan_unpoison_memory_region(stack_, stackBytes_));
#if defined(__x86_64__)
  // What variatorSwitchStack pops: r15 r14 r13 r12 rbx rbp, then the address it returns to.
  auto* top = reinterpret_cast<void**>(stack_ + stackBytes_ - 64);
  *--top = nullptr;  // two words, so that the entry calls from a stack aligned to 16 bytes
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&variatorFiberEntry);
  *--top = nullptr;
  *--top = nullptr;
  *--top = this;
  *--top = reinterpret_cast<void*>(&Fiber::run);
  *--top = nullptr;
  *--top = nullptr;
  own_ = top;
#else
  getcontext(&own_);
  own_.uc_stack.ss_sp = stack_;
  own_.uc_stack.ss_size = stackBytes_;
  own_.uc_link = nullptr;
  // makecontext hands over ints: the pointer in two halves.
  const auto bits = reinterpret_cast<uintptr_t>(this);
  auto start = +[](unsigned low, unsigned high) {
    run(reinterpret_cast<Fiber*>(static_cast<uintptr_t>(low) | static_cast<uintptr_t>(high) << 32));
  };
  makecontext(&own_, reinterpret_cast<void (*)()>(start), 2, static_cast<unsigned>(bits), static_cast<unsigned>(uint64_t{bits} >> 32));
#endif
}

void Fiber::resume() {
  VARIATOR_ASAN(__sanitizer_start_switch_fiber(&schedulerFake_, stack_, stackBytes_));
#if defined(__x86_64__)
  variatorSwitchStack(&scheduler_, own_);
#else
  swapcontext(&scheduler_, &own_);
#endif
  VARIATOR_ASAN(__sanitizer_finish_switch_fiber(schedulerFake_, nullptr, nullptr));
}

void Fiber::giveWay() {
  VARIATOR_ASAN(__sanitizer_start_switch_fiber(&ownFake_, schedulerStack_, schedulerStackBytes_));
#if defined(__x86_64__)
  variatorSwitchStack(&own_, scheduler_);
#else
  swapcontext(&own_, &scheduler_);
#endif
  VARIATOR_ASAN(__sanitizer_finish_switch_fiber(ownFake_, &schedulerStack_, &schedulerStackBytes_));
}

}  // namespace variator::cuda::emulated
