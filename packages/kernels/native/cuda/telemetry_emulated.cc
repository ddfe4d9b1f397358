// See telemetry.h: an emulated device has no clock and no power.
#include <cmath>

#include "telemetry.h"

namespace variator::cuda {

VariatorCudaTelemetry readTelemetry() { return {NAN, NAN, NAN, NAN, NAN, -1}; }

}  // namespace variator::cuda
