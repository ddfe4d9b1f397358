// See cuda_library.h.
#include "cuda_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <mutex>
#include <sstream>
#include <vector>

#include "native_fault.h"

namespace variator {
namespace {

std::vector<std::string> visibleDevices(const char* list) {
  std::vector<std::string> devices;
  std::istringstream text(list);
  for (std::string each; std::getline(text, each, ',');) devices.push_back(each);
  return devices;
}

// The library takes the first device that the process may see, so it is shown that one alone; before the driver is loaded.
void showDevice(int ordinal) {
  // As they were before this function first changed them.
  static const bool isLimited = std::getenv("CUDA_VISIBLE_DEVICES") != nullptr;
  static const std::vector<std::string> visible = isLimited ? visibleDevices(std::getenv("CUDA_VISIBLE_DEVICES")) : std::vector<std::string>{};
  setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 0);
  std::string device = std::to_string(ordinal);
  if (isLimited) {
    if (ordinal >= static_cast<int>(visible.size())) {
      throw NativeFault("cuda:" + device + ": CUDA_VISIBLE_DEVICES shows this process " + std::to_string(visible.size()) +
                        " devices; they are counted from cuda:0.");
    }
    device = visible[static_cast<size_t>(ordinal)];
  }
  setenv("CUDA_VISIBLE_DEVICES", device.c_str(), 1);
}

}  // namespace

CudaLibrary::CudaLibrary(const std::string& file, int ordinal) {
  showDevice(ordinal);
  void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* reason = dlerror();
    throw NativeFault("The CUDA library cannot be opened: " + std::string(reason == nullptr ? file : reason) + ".");
  }
#define VARIATOR_CUDA_LOOKUP(function)                                                                    \
  function = reinterpret_cast<decltype(function)>(dlsym(library, #function));                             \
  if (function == nullptr) {                                                                              \
    throw NativeFault("The CUDA library " + file + " has no " #function ": build it again (npm run build:cuda)."); \
  }
  VARIATOR_CUDA_FUNCTIONS(VARIATOR_CUDA_LOOKUP)
#undef VARIATOR_CUDA_LOOKUP
  const int32_t abi = variatorCudaAbi();
  if (abi != VARIATOR_CUDA_ABI) {
    throw NativeFault("The CUDA library " + file + " has ABI " + std::to_string(abi) + ", and this build needs " +
                      std::to_string(VARIATOR_CUDA_ABI) + ": build both again (npm run build:native, npm run build:cuda).");
  }
}

std::shared_ptr<const CudaLibrary> CudaLibrary::open(const std::string& file, int ordinal) {
  static std::mutex mutex;
  static std::shared_ptr<const CudaLibrary> opened;
  static std::string openedFile;
  static int openedOrdinal = 0;
  const std::lock_guard<std::mutex> lock(mutex);
  if (opened != nullptr && (openedFile != file || openedOrdinal != ordinal)) {
    throw NativeFault("This process has opened another CUDA device: one a process.");
  }
  if (opened == nullptr) {
    std::shared_ptr<const CudaLibrary> library(new CudaLibrary(file, ordinal));
    VariatorCudaDevice device;
    if (library->variatorCudaDevice(&device) != 0) {
      throw NativeFault("No GPU can be used as cuda:" + std::to_string(ordinal) + ": " + library->variatorCudaLastError(nullptr));
    }
    opened = std::move(library);
    openedFile = file;
    openedOrdinal = ordinal;
  }
  return opened;
}

void CudaLibrary::check(int32_t status, const void* handle) const {
  if (status != 0) throw NativeFault(variatorCudaLastError(handle));
}

bool CudaLibrary::isDeviceLost() const {
  VariatorCudaDevice device;
  return variatorCudaDevice(&device) != 0;
}

}  // namespace variator
