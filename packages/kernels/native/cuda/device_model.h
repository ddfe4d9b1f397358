// A dense transformer (Llama, Mistral, Qwen2, Qwen3) on the device: matrices as bf16, vectors as float32, projections that
// read the same rows laid together. Made by variatorCudaOpenModel; constant afterwards, read by engine.cc.
#pragma once
#include <memory>
#include <vector>

#include "formats.h"
#include "gpu.h"
#include "variator_cuda.h"

namespace variator::cuda {

struct DeviceLayer {
  DeviceArray<Bf16> qkv;     // [(headCount + 2 kvHeadCount) headSize, hiddenSize]
  DeviceArray<Bf16> o;       // [hiddenSize, headCount headSize]
  DeviceArray<Bf16> gateUp;  // [2 intermediateSize, hiddenSize]: gate, then up
  DeviceArray<Bf16> down;    // [hiddenSize, intermediateSize]
  DeviceArray<float> inputNorm, postAttentionNorm;
  DeviceArray<float> qkvBias, qNorm, kNorm;  // empty where the model has none
};

struct DeviceModel {
  int32_t layerCount, hiddenSize, intermediateSize, headCount, kvHeadCount, headSize, vocabularySize, maxPositionCount;
  float rmsNormEpsilon, ropeAttentionFactor;
  bool isRopeInterleaved;
  std::vector<int32_t> windowTokens;  // [layerCount]
  DeviceArray<float> frequencies;     // [headSize / 2]
  DeviceArray<Bf16> embedding, ownHead;
  DeviceArray<float> finalNorm;
  std::vector<DeviceLayer> layers;
  int64_t weightBytes = 0;

  int32_t qkvSize() const { return (headCount + 2 * kvHeadCount) * headSize; }
  int32_t group() const { return headCount / kvHeadCount; }
  // The embedding where they are tied.
  const Bf16* head() const { return ownHead.count() > 0 ? ownHead.data() : embedding.data(); }
};

// Throws NativeFault with the tensor's name, or with what of the shape is not supported.
DeviceModel openDeviceModel(const VariatorCudaModelSource& source, Stream stream);

}  // namespace variator::cuda
