// The border of native-cuda.ts, beside that of native.ts in addon.cc, which exports it.
#pragma once
#include <node_api.h>

namespace variator {

// bindCuda(NativeError, DeviceLostError, libraryFile, ordinal): the functions of CudaKernels.
napi_value bindCuda(napi_env env, napi_callback_info info);

}  // namespace variator
