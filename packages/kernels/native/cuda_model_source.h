// ModelShape and ModelTensors in the form of cuda/variator_cuda.h, with the memory that its pointers lead to. Read from
// JavaScript by cuda_addon.cc, handed to the library by CudaEngine, which maps and checks the files itself.
#pragma once
#include <node_api.h>

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "cuda/variator_cuda.h"
#include "model.h"

namespace variator {

class CudaModelSource {
 public:
  // Throws NativeFault for a shape or a tensor that is none, and for models with experts or latents.
  CudaModelSource(napi_env env, napi_value shape, napi_value tensors);
  VariatorCudaModelSource source{};

 private:
  VariatorCudaTensor tensorOf(napi_env env, napi_value parent, const char* name, bool isOptional);
  const char* kept(std::string text);

  ModelShape shape_;
  std::vector<VariatorCudaLayer> layers_;
  std::deque<std::string> texts_;
};

}  // namespace variator
