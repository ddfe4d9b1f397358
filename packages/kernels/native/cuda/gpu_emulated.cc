// gpu.h over the emulator. A stream keeps what it is given until somebody waits for it, as late as a device may be: who
// reads a result before waiting finds poison. Copies are checked to go where they say, device memory has guards.
#include "gpu_emulated.h"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "../native_fault.h"
#include "emulator.h"

namespace variator::cuda {

using Work = std::function<void()>;

struct GraphState {
  std::vector<Work> works;
};

struct StreamState {
  std::vector<Work> works;
  bool isCapturing = false;
  std::unique_ptr<GraphState> capture;
};

struct EventState {
  std::chrono::steady_clock::time_point time;
  bool isPast = false;
};

namespace {

uint64_t scheduleSeed = 1, launchCount = 0;

std::map<const uint8_t*, int64_t>& allocations() {
  static std::map<const uint8_t*, int64_t> all;
  return all;
}

void give(Stream stream, Work work) {
  (stream->isCapturing ? stream->capture->works : stream->works).push_back(std::move(work));
}

void checkOnDevice(const void* memory, int64_t bytes, const char* what) {
  const auto* address = static_cast<const uint8_t*>(memory);
  auto after = allocations().upper_bound(address);
  if (after != allocations().begin()) {
    --after;
    if (address + bytes <= after->first + after->second) return;
  }
  throw NativeFault(std::string(what) + ": not within an allocation of the device");
}

}  // namespace

DeviceInfo deviceInfo() {
  return {"emulated device", true, 90, 4, int64_t{1} << 34, int64_t{1} << 34, 227 << 10, 1 << 20};
}

void* allocate(int64_t bytes) {
  if (bytes <= 0) throw NativeFault("device memory: nothing was asked for");
  void* memory = nullptr;
  if (posix_memalign(&memory, 256, static_cast<size_t>(bytes)) != 0) throw NativeFault("device memory: " + std::to_string(bytes) + " bytes are not to be had");
  std::memset(memory, 0xff, static_cast<size_t>(bytes));
  allocations()[static_cast<uint8_t*>(memory)] = bytes;
  return memory;
}

void release(void* memory) noexcept {
  allocations().erase(static_cast<uint8_t*>(memory));
  std::free(memory);
}

void* allocateHost(int64_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, static_cast<size_t>(bytes > 0 ? bytes : 1)) != 0) throw NativeFault("host memory: " + std::to_string(bytes) + " bytes are not to be had");
  return memory;
}
void releaseHost(void* memory) noexcept { std::free(memory); }

Stream createStream() { return new StreamState; }
void destroyStream(Stream stream) noexcept { delete stream; }

void wait(Stream stream) {
  if (stream->isCapturing) throw NativeFault("a stream that is being captured cannot be waited for");
  const auto works = std::move(stream->works);
  stream->works.clear();
  for (const Work& work : works) work();
}

void copyToDevice(void* to, const void* from, int64_t bytes, Stream stream) {
  checkOnDevice(to, bytes, "copyToDevice");
  give(stream, [=] { std::memcpy(to, from, static_cast<size_t>(bytes)); });
}
void copyToHost(void* to, const void* from, int64_t bytes, Stream stream) {
  checkOnDevice(from, bytes, "copyToHost");
  give(stream, [=] { std::memcpy(to, from, static_cast<size_t>(bytes)); });
}
void copyOnDevice(void* to, const void* from, int64_t bytes, Stream stream) {
  checkOnDevice(to, bytes, "copyOnDevice");
  checkOnDevice(from, bytes, "copyOnDevice");
  give(stream, [=] { std::memmove(to, from, static_cast<size_t>(bytes)); });
}
void fill(void* memory, uint8_t byte, int64_t bytes, Stream stream) {
  checkOnDevice(memory, bytes, "fill");
  give(stream, [=] { std::memset(memory, byte, static_cast<size_t>(bytes)); });
}

void callInOrder(Stream stream, std::function<void(void* runtimeStream)> call) {
  give(stream, [call = std::move(call)] { call(nullptr); });
}

Event createEvent() { return new EventState; }
void destroyEvent(Event event) noexcept { delete event; }
void record(Event event, Stream stream) {
  event->isPast = false;
  give(stream, [=] {
    event->time = std::chrono::steady_clock::now();
    event->isPast = true;
  });
}
double elapsedMs(Event from, Event to) {
  if (!from->isPast || !to->isPast) throw NativeFault("elapsedMs: an event has not come to pass");
  return std::chrono::duration<double, std::milli>(to->time - from->time).count();
}

void beginCapture(Stream stream) {
  stream->isCapturing = true;
  stream->capture = std::make_unique<GraphState>();
}
Graph endCapture(Stream stream) {
  stream->isCapturing = false;
  return stream->capture.release();
}
void replay(Graph graph, Stream stream) {
  give(stream, [works = graph->works] {
    for (const Work& work : works) work();
  });
}
void destroyGraph(Graph graph) noexcept { delete graph; }

void setScheduleSeed(uint64_t seed) {
  scheduleSeed = seed;
  launchCount = 0;
}

void enqueueLaunch(const char* name, const LaunchShape& shape, std::function<void()> body, Stream stream) {
  give(stream, [name, shape, body = std::move(body)] {
    emulated::runLaunch(name, shape, body, scheduleSeed * 0x9e3779b97f4a7c15ull + launchCount++);
  });
}

}  // namespace variator::cuda
