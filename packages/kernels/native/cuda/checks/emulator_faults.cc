// That the emulator finds what it is there to find: each of these kernels is broken in one way, and must be told wrong, or
// give a wrong value, under at least one of a few seeds. Its sound twin must pass under all of them. Emulator alone.
#include <string>

#include "../../native_fault.h"
#include "../device.cuh"
#include "checks.h"

namespace variator::cuda {
namespace {

enum class Break { Nothing, NoBarrier, NoWait, HalfBarrier, Misaligned, UnsetShared };

struct Arguments {
  const uint32_t* in;  // [64 * 4]
  uint32_t* out;       // [64]
  Break how;
};

// Every thread copies 16 bytes into shared memory and gives out the first word of what its neighbour copied.
KERNEL(64) void neighbours(const Arguments a) {
  uint8_t* shared = sharedMemory();
  const uint32_t own = thread(), next = (own + 1) % 64;
  const auto* from = reinterpret_cast<const uint8_t*>(a.in) + 16 * own + (a.how == Break::Misaligned ? 4 : 0);
  if (a.how != Break::UnsetShared || own != 5) copyAsync16(shared + 16 * own, from);
  commitCopies();
  if (a.how != Break::NoWait) waitCopies<0>();
  if (a.how != Break::NoBarrier && (a.how != Break::HalfBarrier || own < 32)) syncThreads();
  uint32_t word;
  std::memcpy(&word, shared + 16 * next, 4);
  a.out[own] = word;
}

struct AtomicArguments {
  uint32_t* total;
  bool isAtomic;
};

// Where the sum is not atomic, another thread's comes between reading and writing.
KERNEL(64) void total(const AtomicArguments a) {
  if (a.isAtomic) {
    atomicAddTo(a.total, 1u);
    return;
  }
  const uint32_t before = *a.total;
  syncWarp();
  *a.total = before + 1;
}

// Seeds of eight under which it goes wrong.
int wrongCount(CheckRun& run, Break how) {
  Random random(run.seed);
  std::vector<uint32_t> in(64 * 4 + 4);
  for (auto& one : in) one = static_cast<uint32_t>(random.bits()) >> 1;
  const auto inArray = run.upload(in);
  int count = 0;
  for (uint64_t seed = 0; seed < 8; seed++) {
    setScheduleSeed(run.seed * 8 + seed);
    const auto out = run.poisoned<uint32_t>(64);
    bool isWrong = false;
    try {
      launch("neighbours", neighbours, {{1}, {64}, 64 * 16}, run.stream, Arguments{inArray.data(), out.data(), how});
      const auto got = run.download(out);
      for (uint32_t i = 0; i < 64; i++) isWrong = isWrong || got[i] != in[4 * ((i + 1) % 64)];
    } catch (const NativeFault&) {
      isWrong = true;
    }
    count += isWrong ? 1 : 0;
  }
  return count;
}

}  // namespace

void checkEmulatorFaults(CheckRun& run) {
  run.same("a sound kernel goes wrong", wrongCount(run, Break::Nothing), 0);
  for (const auto& [how, name] : {std::pair{Break::NoBarrier, "a missing barrier"},
                                  {Break::NoWait, "a missing wait"},
                                  {Break::HalfBarrier, "a barrier that half the block reaches"},
                                  {Break::Misaligned, "a misaligned copy"},
                                  {Break::UnsetShared, "shared memory that nobody set"}}) {
    run.same(std::string(name) + " is found", wrongCount(run, how) > 0, 1);
  }
  for (const bool isAtomic : {true, false}) {
    const auto sum = run.upload(std::vector<uint32_t>{0});
    launch("total", total, {{1}, {64}}, run.stream, AtomicArguments{sum.data(), isAtomic});
    run.same(isAtomic ? "an atomic sum is whole" : "a sum that is not atomic loses", run.download(sum)[0] == 64, isAtomic);
  }
  // What was launched is there when it was waited for, not before.
  const auto fresh = run.poisoned<uint32_t>(64);
  std::vector<uint32_t> got(64, 7);
  copyToHost(got.data(), fresh.data(), fresh.bytes(), run.stream);
  run.same("a copy to the host is there before it was waited for", got[0], 7);
  wait(run.stream);
  run.same("fresh memory is not poisoned", got[0], 0xffffffffu);
}

}  // namespace variator::cuda
