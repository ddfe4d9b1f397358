// A transformer (Llama, Mistral, Qwen2, Qwen3, mixtures of experts) with its weights mapped and its vectors read, and the
// packed form of its matrices. Built by openModel and prepareLinear; constant afterwards, read by step.cc from every thread.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "expert_routing.h"
#include "panels.h"
#include "tensor.h"

namespace variator {

struct ModelShape {
  int64_t layerCount;
  int64_t hiddenSize;
  int64_t intermediateSize;
  int64_t headCount;
  int64_t kvHeadCount;
  int64_t headSize;
  int64_t vocabularySize;
  int64_t maxPositionCount;
  float rmsNormEpsilon;
  std::vector<float> ropeInverseFrequencies;  // [headSize / 2]
  float ropeAttentionFactor;                  // of cosines and sines
  std::vector<int32_t> windowTokens;          // [layerCount] keys a token attends to, 0 = all
  bool isRopeInterleaved;
  ExpertShape experts;

  int64_t querySize() const { return headCount * headSize; }
  int64_t keySize() const { return kvHeadCount * headSize; }
};

// Where a tensor lies, as TensorSource says it; `name` is for messages.
struct TensorSource {
  std::string name;
  std::string file;
  int64_t offset;
  int64_t byteLength;
  std::string dtype;
  int64_t rows;
  int64_t columns;
};

template <typename Matrix>
struct MlpMatrices {
  Matrix gate, up, down;
};

template <typename Matrix>
struct LayerMatrices {
  Matrix q, k, v, o;
  Matrix gate, up, down;  // what every token passes; without rows (no panels) where a layer has nothing but experts
  Matrix router;          // without rows in a dense layer; never packed
  std::vector<MlpMatrices<Matrix>> experts;
};

struct LayerVectors {
  std::vector<float> inputNorm, postAttentionNorm;
  std::vector<float> qBias, kBias, vBias, qNorm, kNorm, routerBias;  // empty where the model has none
};

struct Model {
  ModelShape shape;
  Tensor embedding, head;
  std::vector<float> finalNorm;
  std::vector<LayerMatrices<Tensor>> matrices;
  std::vector<LayerVectors> vectors;
  std::vector<std::unique_ptr<MappedFile>> files;
  std::vector<std::string> paths;  // of `files`
};

// The matrices of a model in panels, in one arena.
struct PackedModel {
  explicit PackedModel(const Model& model);
  Arena arena;
  std::vector<LayerMatrices<Panels>> matrices;
  Panels head;
};

// Throws NativeFault where the shape is not one that the kernels can run.
void checkShape(const ModelShape& shape);
// Maps the tensor's file (once) and checks that [rows, columns] and its bytes are what they must be.
Tensor mapTensor(Model& model, const TensorSource& source, int64_t rows, int64_t columns);
// The same for a vector [size], read into float32.
std::vector<float> readVector(Model& model, const TensorSource& source, int64_t size);

}  // namespace variator
