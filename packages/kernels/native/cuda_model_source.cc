// See cuda_model_source.h.
#include "cuda_model_source.h"

#include "addon_inputs.h"
#include "napi_values.h"

namespace variator {

const char* CudaModelSource::kept(std::string text) {
  texts_.push_back(std::move(text));
  return texts_.back().c_str();
}

VariatorCudaTensor CudaModelSource::tensorOf(napi_env env, napi_value parent, const char* name, bool isOptional) {
  if (isOptional && isNull(env, propertyOf(env, parent, name))) return {name, nullptr, nullptr, 0, 0, 0, 0};
  const TensorSource tensor = readSource(env, parent, name);
  return {name, kept(tensor.file), kept(tensor.dtype), tensor.offset, tensor.byteLength, tensor.rows, tensor.columns};
}

CudaModelSource::CudaModelSource(napi_env env, napi_value shape, napi_value tensors) : shape_(readShape(env, shape)) {
  if (shape_.experts.expertCount > 0) throw NativeFault("experts: the CUDA kernels run dense models alone");
  if (shape_.hasLatents()) throw NativeFault("latent: the CUDA kernels run models with keys and values of their own alone");
  source.layerCount = shape_.layerCount;
  source.hiddenSize = shape_.hiddenSize;
  source.intermediateSize = shape_.intermediateSize;
  source.headCount = shape_.headCount;
  source.kvHeadCount = shape_.kvHeadCount;
  source.headSize = shape_.headSize;
  source.vocabularySize = shape_.vocabularySize;
  source.maxPositionCount = shape_.maxPositionCount;
  source.rmsNormEpsilon = shape_.rmsNormEpsilon;
  source.ropeInverseFrequencies = shape_.ropeInverseFrequencies.data();
  source.ropeAttentionFactor = shape_.ropeAttentionFactor;
  source.windowTokens = shape_.windowTokens.data();
  source.isRopeInterleaved = shape_.isRopeInterleaved ? 1 : 0;
  source.embedding = tensorOf(env, tensors, "embedding", false);
  source.finalNorm = tensorOf(env, tensors, "finalNorm", false);
  source.head = tensorOf(env, tensors, "head", false);
  const napi_value layers = propertyOf(env, tensors, "layers");
  const uint32_t layerCount = lengthOf(env, layers, "layers");
  if (layerCount != shape_.layerCount) throw NativeFault("layers: must be " + std::to_string(shape_.layerCount) + " of them");
  for (uint32_t index = 0; index < layerCount; index++) {
    const HandleScope scope(env);
    const napi_value layer = elementOf(env, layers, index, "layers");
    const auto required = [&](const char* name) { return tensorOf(env, layer, name, false); };
    const auto optional = [&](const char* name) { return tensorOf(env, layer, name, true); };
    VariatorCudaLayer one{};
    one.inputNorm = required("inputNorm");
    one.q = required("q");
    one.k = required("k");
    one.v = required("v");
    one.o = required("o");
    one.qBias = optional("qBias");
    one.kBias = optional("kBias");
    one.vBias = optional("vBias");
    one.qNorm = optional("qNorm");
    one.kNorm = optional("kNorm");
    one.postAttentionNorm = required("postAttentionNorm");
    one.gate = required("gate");
    one.up = required("up");
    one.down = required("down");
    layers_.push_back(one);
  }
  source.layers = layers_.data();
}

}  // namespace variator
