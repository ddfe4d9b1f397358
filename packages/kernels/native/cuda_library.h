// The CUDA library (cuda/variator_cuda.h) as this process has it: opened by dlopen from an absolute path, so that nothing
// here links CUDA. One library and one device a process, for as long as it lives: a driver's threads outlast any unloading.
// Throws NativeFault with a sentence for people where there is none, another ABI, or no device to use.
#pragma once
#include <memory>
#include <string>

#include "cuda/variator_cuda.h"

namespace variator {

class CudaLibrary {
 public:
  // `ordinal`: which of the devices that the process may see (in the order of their PCI buses).
  static std::shared_ptr<const CudaLibrary> open(const std::string& file, int ordinal);

  // Throws NativeFault with the library's own sentence where a call did not return 0.
  void check(int32_t status, const void* handle) const;
  // Whether the device has gone, as after a fault of a kernel or of the hardware: then every call fails, this one, too.
  bool isDeviceLost() const;

#define VARIATOR_CUDA_FUNCTIONS(each)                                                                                    \
  each(variatorCudaAbi) each(variatorCudaLastError) each(variatorCudaDevice) each(variatorCudaTelemetry)                 \
  each(variatorCudaMmaTileCount) each(variatorCudaOpenModel) each(variatorCudaWeightBytes) each(variatorCudaCloseModel)  \
  each(variatorCudaCreateKvCache) each(variatorCudaKvBlockBytes) each(variatorCudaKvBlockCount)                           \
  each(variatorCudaConvertKvCache) each(variatorCudaCloseKvCache) each(variatorCudaPrepare)                              \
  each(variatorCudaIsBatchInvariant) each(variatorCudaLogprobCount) each(variatorCudaRunStep)
#define VARIATOR_CUDA_POINTER(function) decltype(&::function) function = nullptr;
  VARIATOR_CUDA_FUNCTIONS(VARIATOR_CUDA_POINTER)
#undef VARIATOR_CUDA_POINTER

 private:
  CudaLibrary(const std::string& file, int ordinal);
};

}  // namespace variator
