// What the host asks of a device: memory, copies, streams, events, graphs of launches. Implemented by gpu_native.cu over
// the CUDA runtime and by gpu_emulated.cc over the emulator; called by the engine and the checks. Every function throws
// NativeFault with the runtime's own words. One device a process: device 0 of those that the process may see.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "launch_shape.h"

namespace variator::cuda {

// Work in order; what a stream was given is done at the latest when it is waited for.
struct StreamState;
using Stream = StreamState*;
struct EventState;
using Event = EventState*;
struct GraphState;
using Graph = GraphState*;

struct DeviceInfo {
  std::string name;
  bool isEmulated;
  int32_t computeCapability;  // 90: 9.0
  int32_t multiprocessorCount;
  int64_t memoryBytes, freeBytes;
  int64_t sharedBytesPerBlock;  // the most that a launch may ask for
  int64_t l2Bytes;
};
DeviceInfo deviceInfo();

// Fresh memory holds anything at all (in the emulator: numbers that are none). At least 256-byte aligned.
void* allocate(int64_t bytes);
void release(void* memory) noexcept;
// Host memory that copies go to and from directly.
void* allocateHost(int64_t bytes);
void releaseHost(void* memory) noexcept;

Stream createStream();
void destroyStream(Stream stream) noexcept;
void wait(Stream stream);
void copyToDevice(void* to, const void* from, int64_t bytes, Stream stream);
void copyToHost(void* to, const void* from, int64_t bytes, Stream stream);
void copyOnDevice(void* to, const void* from, int64_t bytes, Stream stream);
void fill(void* memory, uint8_t byte, int64_t bytes, Stream stream);

// Gives the work of another library its place in the stream: `call` comes now with the runtime's own stream, in the emulator with
// null when its turn has come. It may be captured.
void callInOrder(Stream stream, std::function<void(void* runtimeStream)> call);

Event createEvent();
void destroyEvent(Event event) noexcept;
void record(Event event, Stream stream);
// Between two events that have come to pass.
double elapsedMs(Event from, Event to);

// What the stream is given from begin to end is kept and not run.
void beginCapture(Stream stream);
Graph endCapture(Stream stream);
void replay(Graph graph, Stream stream);
void destroyGraph(Graph graph) noexcept;

// Seed of the emulator's scheduling from now on; nothing on a device.
void setScheduleSeed(uint64_t seed);

// Owned device memory.
template <typename T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(int64_t count) : data_(count > 0 ? static_cast<T*>(allocate(count * static_cast<int64_t>(sizeof(T)))) : nullptr), count_(count) {}
  ~DeviceArray() { reset(); }
  DeviceArray(DeviceArray&& other) noexcept : data_(other.data_), count_(other.count_) {
    other.data_ = nullptr;
    other.count_ = 0;
  }
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    if (this != &other) {
      reset();
      data_ = other.data_;
      count_ = other.count_;
      other.data_ = nullptr;
      other.count_ = 0;
    }
    return *this;
  }
  T* data() const { return data_; }
  int64_t count() const { return count_; }
  int64_t bytes() const { return count_ * static_cast<int64_t>(sizeof(T)); }

 private:
  void reset() noexcept {
    if (data_ != nullptr) release(data_);
    data_ = nullptr;
  }
  T* data_ = nullptr;
  int64_t count_ = 0;
};

// Owned, so that a constructor that throws leaves none behind.
class OwnedStream {
 public:
  OwnedStream() : stream_(createStream()) {}
  ~OwnedStream() { destroyStream(stream_); }
  OwnedStream(const OwnedStream&) = delete;
  OwnedStream& operator=(const OwnedStream&) = delete;
  operator Stream() const { return stream_; }

 private:
  Stream stream_;
};
class OwnedEvent {
 public:
  OwnedEvent() : event_(createEvent()) {}
  ~OwnedEvent() { destroyEvent(event_); }
  OwnedEvent(const OwnedEvent&) = delete;
  OwnedEvent& operator=(const OwnedEvent&) = delete;
  operator Event() const { return event_; }

 private:
  Event event_;
};

// Owned host memory that the device copies to and from.
struct ReleaseHost {
  void operator()(void* memory) const noexcept { releaseHost(memory); }
};
template <typename T>
using HostArray = std::unique_ptr<T[], ReleaseHost>;
template <typename T>
HostArray<T> hostArray(int64_t count) {
  return HostArray<T>(static_cast<T*>(allocateHost(count * static_cast<int64_t>(sizeof(T)))));
}

}  // namespace variator::cuda
