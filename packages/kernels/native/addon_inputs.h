// Turns ModelShape, ModelTensors and StepInput of the TypeScript side into their native forms. Used by addon.cc alone.
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

}  // namespace variator
