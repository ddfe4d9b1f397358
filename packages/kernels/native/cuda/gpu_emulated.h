// How a launch gets onto an emulated stream, for device_emulated.h; gpu_emulated.cc implements it.
#pragma once
#include <functional>

#include "gpu.h"

namespace variator::cuda {

void enqueueLaunch(const char* name, const LaunchShape& shape, std::function<void()> body, Stream stream);

}  // namespace variator::cuda
