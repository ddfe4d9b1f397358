// Turns ModelShape, ModelTensors and StepInput of the TypeScript side into their native forms. Used by addon.cc and
// cuda_addon.cc.
#pragma once
#include <node_api.h>

#include <memory>

#include "attention_trial.h"
#include "model.h"
#include "step.h"

namespace variator {

// Maps every tensor; throws NativeFault where one does not fit the shape or its file.
std::unique_ptr<Model> readModel(napi_env env, napi_value shape, napi_value tensors);
// Maps one tensor into `model`, which holds its file.
Tensor readTensor(napi_env env, napi_value source, Model& model);
// Copies a StepInput; checkStep checks it.
std::shared_ptr<Step> readStep(napi_env env, napi_value input);
AttentionTrial readAttentionTrial(napi_env env, napi_value object);
// The same of what is no choice of kernels: tokens, blocks, sampling, rules, scores.
std::shared_ptr<Step> readBatch(napi_env env, napi_value input);
// As readModel reads them, each on its own.
ModelShape readShape(napi_env env, napi_value object);
TensorSource readSource(napi_env env, napi_value parent, const char* name);
uint32_t lengthOf(napi_env env, napi_value list, const char* name);
napi_value elementOf(napi_env env, napi_value list, uint32_t index, const char* name);

// Closed however the block is left: Node ends the process where a scope is still open when a call returns.
class HandleScope {
 public:
  explicit HandleScope(napi_env env);
  ~HandleScope();
  HandleScope(const HandleScope&) = delete;
  HandleScope& operator=(const HandleScope&) = delete;

 private:
  napi_env env_;
  napi_handle_scope scope_ = nullptr;
};

}  // namespace variator
