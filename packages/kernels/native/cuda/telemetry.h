// What the driver says of the device while it works. Called by variator_cuda.cc; telemetry_native.cu asks NVML, opened by
// dlopen so that nothing links it; telemetry_emulated.cc knows nothing. Never throws: what is not known is NaN or -1.
#pragma once
#include "variator_cuda.h"

namespace variator::cuda {

VariatorCudaTelemetry readTelemetry();

}  // namespace variator::cuda
