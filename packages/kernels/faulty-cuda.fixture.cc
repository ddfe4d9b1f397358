// A CUDA library with a fault, for the border's and the worker's tests: FAULT says which. Where LIBRARY names a real one
// (the emulated device's), everything else is passed on to it. Compiled by faulty-cuda.fixture.ts.
#include <dlfcn.h>

#include <cstdint>
#include <cstring>

#include "native/cuda/variator_cuda.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

enum { NO_DEVICE = 1, OTHER_ABI = 2, DEVICE_LOST = 3 };
int32_t stepCount = 0;

template <typename Function>
Function real(const char* name) {
#if defined(LIBRARY)
  static void* library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
  return reinterpret_cast<Function>(dlsym(library, name));
#else
  (void)name;
  return nullptr;
#endif
}

bool isLost() { return FAULT == DEVICE_LOST && stepCount > LOST_AFTER_STEPS; }

}  // namespace

#define PASS(function, ...)                                   \
  static const auto passed = real<decltype(&function)>(#function); \
  return passed == nullptr ? 1 : passed(__VA_ARGS__)

EXPORT int32_t variatorCudaAbi(void) { return FAULT == OTHER_ABI ? VARIATOR_CUDA_ABI + 1 : VARIATOR_CUDA_ABI; }
EXPORT const char* variatorCudaLastError(const void* handle) {
  if (FAULT == NO_DEVICE) return "device: no CUDA-capable device is detected";
  if (isLost()) return "stream: an illegal memory access was encountered";
  static const auto passed = real<decltype(&variatorCudaLastError)>("variatorCudaLastError");
  return passed == nullptr ? "" : passed(handle);
}
EXPORT int32_t variatorCudaDevice(VariatorCudaDevice* device) {
  if (FAULT == NO_DEVICE || isLost()) return 1;
  PASS(variatorCudaDevice, device);
}
EXPORT int32_t variatorCudaTelemetry(VariatorCudaTelemetry* telemetry) { PASS(variatorCudaTelemetry, telemetry); }
EXPORT int32_t variatorCudaMmaTileCount(void) { PASS(variatorCudaMmaTileCount); }
EXPORT int32_t variatorCudaOpenModel(const VariatorCudaModelSource* source, const VariatorCudaLimits* limits, VariatorCudaModel** model) {
  PASS(variatorCudaOpenModel, source, limits, model);
}
EXPORT int32_t variatorCudaWeightBytes(const VariatorCudaModel* model, int64_t* bytes) { PASS(variatorCudaWeightBytes, model, bytes); }
EXPORT int32_t variatorCudaCloseModel(VariatorCudaModel* model) { PASS(variatorCudaCloseModel, model); }
EXPORT int32_t variatorCudaCreateKvCache(VariatorCudaModel* model, int32_t blockCount, int32_t blockSize, const char* kvFormat, VariatorCudaKvCache** kvCache) {
  PASS(variatorCudaCreateKvCache, model, blockCount, blockSize, kvFormat, kvCache);
}
EXPORT int32_t variatorCudaKvBlockBytes(const VariatorCudaKvCache* kvCache, int64_t* bytes) { PASS(variatorCudaKvBlockBytes, kvCache, bytes); }
EXPORT int32_t variatorCudaKvBlockCount(const VariatorCudaKvCache* kvCache, const char* kvFormat, int32_t* blockCount) {
  PASS(variatorCudaKvBlockCount, kvCache, kvFormat, blockCount);
}
EXPORT int32_t variatorCudaConvertKvCache(VariatorCudaKvCache* kvCache, const char* kvFormat, const int32_t* blockIds, int32_t count, double* convertMs) {
  PASS(variatorCudaConvertKvCache, kvCache, kvFormat, blockIds, count, convertMs);
}
EXPORT int32_t variatorCudaCloseKvCache(VariatorCudaKvCache* kvCache) { PASS(variatorCudaCloseKvCache, kvCache); }
EXPORT int32_t variatorCudaPrepare(VariatorCudaModel* model, VariatorCudaKvCache* kvCache, const VariatorCudaPath* path, double* prepareMs) {
  PASS(variatorCudaPrepare, model, kvCache, path, prepareMs);
}
EXPORT int32_t variatorCudaIsBatchInvariant(const VariatorCudaPath* path, int32_t* isBatchInvariant) {
  PASS(variatorCudaIsBatchInvariant, path, isBatchInvariant);
}
EXPORT int32_t variatorCudaLogprobCount(const VariatorCudaStep* step, int64_t* count) { PASS(variatorCudaLogprobCount, step, count); }
EXPORT int32_t variatorCudaRunStep(VariatorCudaModel* model, VariatorCudaKvCache* kvCache, const VariatorCudaPath* path,
                                   const VariatorCudaStep* step, VariatorCudaResult* result) {
  stepCount++;
  if (isLost()) return 1;
  PASS(variatorCudaRunStep, model, kvCache, path, step, result);
}
