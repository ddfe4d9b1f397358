// The launch itself, for device_native.cuh; gpu_native.cu implements it.
#pragma once
#include <tuple>

#include "gpu.h"

namespace variator::cuda {

// Grants the kernel the shared memory it asks for, once, and launches it. Throws NativeFault with the kernel's name.
void launchKernel(const char* name, const void* kernel, const LaunchShape& shape, Stream stream, void** arguments);

}  // namespace variator::cuda
