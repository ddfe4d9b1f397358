// gpu.h over the CUDA runtime.
#include "gpu_native.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <mutex>
#include <string>
#include <unordered_map>

#include "../native_fault.h"

namespace variator::cuda {
namespace {

void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw NativeFault(std::string(what) + ": " + cudaGetErrorString(error));
}

cudaStream_t streamOf(Stream stream) { return reinterpret_cast<cudaStream_t>(stream); }
cudaEvent_t eventOf(Event event) { return reinterpret_cast<cudaEvent_t>(event); }
cudaGraphExec_t graphOf(Graph graph) { return reinterpret_cast<cudaGraphExec_t>(graph); }

int32_t attributeOf(cudaDeviceAttr attribute) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, attribute, 0), "device");
  return value;
}

}  // namespace

DeviceInfo deviceInfo() {
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, 0), "device");
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "device");
  return {properties.name,
          false,
          10 * properties.major + properties.minor,
          properties.multiProcessorCount,
          static_cast<int64_t>(total),
          static_cast<int64_t>(free),
          attributeOf(cudaDevAttrMaxSharedMemoryPerBlockOptin),
          properties.l2CacheSize};
}

void* allocate(int64_t bytes) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, static_cast<size_t>(bytes)), "device memory");
  return memory;
}
void release(void* memory) noexcept { cudaFree(memory); }
void* allocateHost(int64_t bytes) {
  void* memory = nullptr;
  check(cudaMallocHost(&memory, static_cast<size_t>(std::max<int64_t>(bytes, 1))), "host memory");
  return memory;
}
void releaseHost(void* memory) noexcept { cudaFreeHost(memory); }

Stream createStream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  return reinterpret_cast<Stream>(stream);
}
void destroyStream(Stream stream) noexcept { cudaStreamDestroy(streamOf(stream)); }
void wait(Stream stream) { check(cudaStreamSynchronize(streamOf(stream)), "stream"); }
void copyToDevice(void* to, const void* from, int64_t bytes, Stream stream) {
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, streamOf(stream)), "copyToDevice");
}
void copyToHost(void* to, const void* from, int64_t bytes, Stream stream) {
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, streamOf(stream)), "copyToHost");
}
void copyOnDevice(void* to, const void* from, int64_t bytes, Stream stream) {
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, streamOf(stream)), "copyOnDevice");
}
void fill(void* memory, uint8_t byte, int64_t bytes, Stream stream) {
  check(cudaMemsetAsync(memory, byte, static_cast<size_t>(bytes), streamOf(stream)), "fill");
}

void callInOrder(Stream stream, std::function<void(void* runtimeStream)> call) { call(streamOf(stream)); }

Event createEvent() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreate(&event), "event");
  return reinterpret_cast<Event>(event);
}
void destroyEvent(Event event) noexcept { cudaEventDestroy(eventOf(event)); }
void record(Event event, Stream stream) { check(cudaEventRecord(eventOf(event), streamOf(stream)), "event"); }
double elapsedMs(Event from, Event to) {
  float ms = 0;
  check(cudaEventElapsedTime(&ms, eventOf(from), eventOf(to)), "event");
  return ms;
}

void beginCapture(Stream stream) { check(cudaStreamBeginCapture(streamOf(stream), cudaStreamCaptureModeThreadLocal), "capture"); }
Graph endCapture(Stream stream) {
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(streamOf(stream), &graph), "capture");
  cudaGraphExec_t executable = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  check(error, "graph");
  return reinterpret_cast<Graph>(executable);
}
void replay(Graph graph, Stream stream) { check(cudaGraphLaunch(graphOf(graph), streamOf(stream)), "graph"); }
void destroyGraph(Graph graph) noexcept { cudaGraphExecDestroy(graphOf(graph)); }

void setScheduleSeed(uint64_t) {}

void launchKernel(const char* name, const void* kernel, const LaunchShape& shape, Stream stream, void** arguments) {
  // The most shared memory a kernel was granted so far.
  static std::mutex mutex;
  static std::unordered_map<const void*, int64_t> granted;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    int64_t& most = granted[kernel];
    if (shape.sharedBytes > (48 << 10) && shape.sharedBytes > most) {
      check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.sharedBytes)), name);
      most = shape.sharedBytes;
    }
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(shape.grid.x, shape.grid.y, shape.grid.z);
  config.blockDim = dim3(shape.block.x, shape.block.y, shape.block.z);
  config.dynamicSmemBytes = static_cast<size_t>(shape.sharedBytes);
  config.stream = streamOf(stream);
  cudaLaunchAttribute attributes[2];
  unsigned count = 0;
  if (shape.cluster.count() > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count].val.clusterDim.x = shape.cluster.x;
    attributes[count].val.clusterDim.y = shape.cluster.y;
    attributes[count].val.clusterDim.z = shape.cluster.z;
    count++;
  }
  if (shape.overlapsBefore) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count].val.programmaticStreamSerializationAllowed = 1;
    count++;
  }
  config.attrs = attributes;
  config.numAttrs = count;
  check(cudaLaunchKernelExC(&config, kernel, arguments), name);
}

}  // namespace variator::cuda
