// variator_cuda.h over Engine: handles, and faults turned into numbers and sentences. Checks that pointers are there; what
// they say is checked where it is used.
#include "variator_cuda.h"

#include <chrono>
#include <cstring>
#include <memory>
#include <new>
#include <set>
#include <string>

#include "../native_fault.h"
#include "engine.h"
#include "gemm_library.h"
#include "linear.h"
#include "telemetry.h"

struct VariatorCudaModel {
  std::unique_ptr<variator::cuda::Engine> engine;
  std::set<VariatorCudaKvCache*> caches;
  mutable std::string fault;
};

struct VariatorCudaKvCache {
  VariatorCudaModel* model;
  std::unique_ptr<variator::cuda::KvCache> cache;
  mutable std::string fault;
};

#define VARIATOR_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

thread_local std::string threadFault;

// Models and caches alike begin by being one of these.
std::set<const void*>& models() {
  static std::set<const void*> all;
  return all;
}

template <typename Work>
int32_t guarded(std::string& fault, const Work& work) {
  try {
    work();
    fault.clear();
    return 0;
  } catch (const variator::NativeFault& error) {
    fault = error.what();
  } catch (const std::bad_alloc&) {
    fault = "memory is not to be had";
  }
  return 1;
}

void require(bool isMet, const char* fault) {
  if (!isMet) throw variator::NativeFault(fault);
}

}  // namespace

VARIATOR_EXPORT int32_t variatorCudaAbi(void) { return VARIATOR_CUDA_ABI; }

VARIATOR_EXPORT const char* variatorCudaLastError(const void* handle) {
  if (handle == nullptr) return threadFault.c_str();
  if (models().count(handle) > 0) return static_cast<const VariatorCudaModel*>(handle)->fault.c_str();
  return static_cast<const VariatorCudaKvCache*>(handle)->fault.c_str();
}

VARIATOR_EXPORT int32_t variatorCudaDevice(VariatorCudaDevice* device) {
  return guarded(threadFault, [&] {
    require(device != nullptr, "device: is not there");
    const variator::cuda::DeviceInfo info = variator::cuda::deviceInfo();
    *device = {};
    std::strncpy(device->name, info.name.c_str(), sizeof(device->name) - 1);
    device->isEmulated = info.isEmulated ? 1 : 0;
    device->computeCapability = info.computeCapability;
    device->multiprocessorCount = info.multiprocessorCount;
    device->memoryBytes = info.memoryBytes;
    device->freeBytes = info.freeBytes;
    device->l2Bytes = info.l2Bytes;
    device->hasGemmLibrary = variator::cuda::GemmLibrary::isThere() ? 1 : 0;
  });
}

VARIATOR_EXPORT int32_t variatorCudaTelemetry(VariatorCudaTelemetry* telemetry) {
  return guarded(threadFault, [&] {
    require(telemetry != nullptr, "telemetry: is not there");
    *telemetry = variator::cuda::readTelemetry();
  });
}

VARIATOR_EXPORT int32_t variatorCudaMmaTileCount(void) { return variator::cuda::mmaTileCount(); }

VARIATOR_EXPORT int32_t variatorCudaOpenModel(const VariatorCudaModelSource* source, const VariatorCudaLimits* limits, VariatorCudaModel** model) {
  return guarded(threadFault, [&] {
    require(source != nullptr && limits != nullptr && model != nullptr, "openModel: an argument is not there");
    const variator::cuda::DeviceInfo info = variator::cuda::deviceInfo();
    require(info.computeCapability == 90, "the kernels are compiled for compute capability 9.0, and the device has another");
    auto opened = std::make_unique<VariatorCudaModel>();
    opened->engine = std::make_unique<variator::cuda::Engine>(*source, *limits);
    *model = opened.release();
    models().insert(*model);
  });
}

VARIATOR_EXPORT int32_t variatorCudaWeightBytes(const VariatorCudaModel* model, int64_t* bytes) {
  if (model == nullptr || bytes == nullptr) return 1;
  *bytes = model->engine->weightBytes();
  return 0;
}

VARIATOR_EXPORT int32_t variatorCudaCloseModel(VariatorCudaModel* model) {
  if (model == nullptr) return 0;
  const int32_t status = guarded(model->fault, [&] { require(model->caches.empty(), "closeModel: its caches are open"); });
  if (status != 0) return status;
  models().erase(model);
  delete model;
  return 0;
}

VARIATOR_EXPORT int32_t variatorCudaCreateKvCache(VariatorCudaModel* model, int32_t blockCount, int32_t blockSize, const char* kvFormat, VariatorCudaKvCache** kvCache) {
  if (model == nullptr) return 1;
  return guarded(model->fault, [&] {
    require(kvCache != nullptr && kvFormat != nullptr, "createKvCache: an argument is not there");
    const variator::cuda::KvFormat format = variator::cuda::kvFormatOf(kvFormat);
    require(blockSize == variator::cuda::kvBlockTokens, "blockSize: must be 16");
    require(blockCount >= 1 && blockCount <= 1 << 26, "blockCount: must be from 1 to 67108864");
    auto created = std::make_unique<VariatorCudaKvCache>();
    created->model = model;
    created->cache = std::make_unique<variator::cuda::KvCache>(model->engine->model(), blockCount, format);
    *kvCache = created.release();
    model->caches.insert(*kvCache);
  });
}

VARIATOR_EXPORT int32_t variatorCudaKvBlockBytes(const VariatorCudaKvCache* kvCache, int64_t* bytes) {
  if (kvCache == nullptr || bytes == nullptr) return 1;
  *bytes = kvCache->cache->blockBytes();
  return 0;
}

VARIATOR_EXPORT int32_t variatorCudaKvBlockCount(const VariatorCudaKvCache* kvCache, const char* kvFormat, int32_t* blockCount) {
  return guarded(threadFault, [&] {
    require(kvCache != nullptr && kvFormat != nullptr && blockCount != nullptr, "kvBlockCount: an argument is not there");
    *blockCount = kvCache->cache->blockCountIn(variator::cuda::kvFormatOf(kvFormat));
  });
}

VARIATOR_EXPORT int32_t variatorCudaConvertKvCache(VariatorCudaKvCache* kvCache, const char* kvFormat, const int32_t* blockIds, int32_t count, double* convertMs) {
  if (kvCache == nullptr) return 1;
  return guarded(kvCache->fault, [&] {
    require(kvFormat != nullptr && count >= 0 && (blockIds != nullptr || count == 0), "convertKvCache: an argument is not there");
    const auto start = std::chrono::steady_clock::now();
    kvCache->model->engine->convert(*kvCache->cache, variator::cuda::kvFormatOf(kvFormat), {blockIds, blockIds + count});
    if (convertMs != nullptr) *convertMs = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  });
}

VARIATOR_EXPORT int32_t variatorCudaCloseKvCache(VariatorCudaKvCache* kvCache) {
  if (kvCache == nullptr) return 0;
  kvCache->model->engine->forget(*kvCache->cache);
  kvCache->model->caches.erase(kvCache);
  delete kvCache;
  return 0;
}

VARIATOR_EXPORT int32_t variatorCudaPrepare(VariatorCudaModel* model, VariatorCudaKvCache* kvCache, const VariatorCudaPath* path, double* prepareMs) {
  if (model == nullptr) return 1;
  return guarded(model->fault, [&] {
    require(kvCache != nullptr && path != nullptr && kvCache->model == model, "prepare: the cache is not one of this model's");
    const auto start = std::chrono::steady_clock::now();
    model->engine->prepare(*kvCache->cache, *path);
    if (prepareMs != nullptr) *prepareMs = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  });
}

VARIATOR_EXPORT int32_t variatorCudaIsBatchInvariant(const VariatorCudaPath* path, int32_t* isBatchInvariant) {
  return guarded(threadFault, [&] {
    require(path != nullptr && isBatchInvariant != nullptr, "isBatchInvariant: an argument is not there");
    variator::cuda::checkPath(*path);
    *isBatchInvariant = path->linear == VARIATOR_CUDA_LINEAR_MMA && path->decode == VARIATOR_CUDA_DECODE_MMA ? 1 : 0;
  });
}

VARIATOR_EXPORT int32_t variatorCudaLogprobCount(const VariatorCudaStep* step, int64_t* count) {
  return guarded(threadFault, [&] {
    require(step != nullptr && count != nullptr, "logprobCount: an argument is not there");
    int64_t sampledCount = 0;
    variator::cuda::headRowsOf(*step, sampledCount, *count);
  });
}

VARIATOR_EXPORT int32_t variatorCudaRunStep(VariatorCudaModel* model, VariatorCudaKvCache* kvCache, const VariatorCudaPath* path, const VariatorCudaStep* step, VariatorCudaResult* result) {
  if (model == nullptr) return 1;
  return guarded(model->fault, [&] {
    require(kvCache != nullptr && kvCache->model == model, "runStep: the cache is not one of this model's");
    require(path != nullptr && step != nullptr && result != nullptr && result->sampledTokenIds != nullptr, "runStep: an argument is not there");
    require(step->isLogitsWanted == 0 || result->logits != nullptr, "runStep: logits are wanted and there is no memory for them");
    require(step->topCounts == nullptr || (result->logprobs != nullptr && result->logprobTokenIds != nullptr), "runStep: scores are wanted and there is no memory for them");
    model->engine->run(*kvCache->cache, *path, *step, *result);
  });
}
