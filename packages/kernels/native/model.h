// A transformer (Llama, Mistral, Qwen2, Qwen3, mixtures of experts) with its weights mapped and its vectors read, and the
// packed form of its matrices. Built by openModel and prepareLinear; constant afterwards, read by step.cc from every thread.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "expert_routing.h"
#include "linear_variants.h"
#include "tensor.h"

namespace variator {

// Multi-head latent attention, see LatentShape of model-shape.ts.
struct LatentShape {
  int64_t keyValueRank = 0;  // 0: none
  int64_t queryRank = 0;     // 0: queries come from the hidden state itself
  int64_t ropeSize = 0;
  int64_t valueHeadSize = 0;
  float scoreFactor = 1;
  bool isAbsorbed = false;  // the cache holds latents (absorbed_attention.cc), else every head's keys and values
};

struct ModelShape {
  int64_t layerCount;
  int64_t hiddenSize;
  int64_t intermediateSize;
  int64_t headCount;
  int64_t kvHeadCount;
  int64_t headSize;  // of queries and keys
  int64_t vocabularySize;
  int64_t maxPositionCount;
  float rmsNormEpsilon;
  std::vector<float> ropeInverseFrequencies;  // [ropeSize() / 2]
  float ropeAttentionFactor;                  // of cosines and sines
  std::vector<int32_t> windowTokens;          // [layerCount] keys a token attends to, 0 = all
  bool isRopeInterleaved;
  ExpertShape experts;
  LatentShape latent;

  bool hasLatents() const { return latent.keyValueRank > 0; }
  int64_t valueHeadSize() const { return hasLatents() ? latent.valueHeadSize : headSize; }
  // The last elements of a head are rotated; all of them without latents.
  int64_t ropeSize() const { return hasLatents() ? latent.ropeSize : headSize; }
  int64_t querySize() const { return headCount * headSize; }
  int64_t keySize() const { return kvHeadCount * headSize; }
  int64_t attendedSize() const { return headCount * valueHeadSize(); }
  // What the KV cache holds of a token.
  int64_t cachedHeadCount() const { return latent.isAbsorbed ? 1 : kvHeadCount; }
  // Even; beyond the latent's own elements there may be a zero.
  int64_t cachedKeySize() const {
    return latent.isAbsorbed ? (latent.keyValueRank + latent.ropeSize + 1) / 2 * 2 : headSize;
  }
  int64_t cachedValueSize() const { return latent.isAbsorbed ? latent.keyValueRank : valueHeadSize(); }
  // Of a head's key what is not rotated (with latents).
  int64_t ownKeySize() const { return headSize - latent.ropeSize; }
  // Of one head what is projected up from a latent: its key without the rotated part, its value.
  int64_t upHeadSize() const { return headSize - latent.ropeSize + latent.valueHeadSize; }
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
  Matrix q, o;
  Matrix k, v;                             // without rows where keys and values come from latents
  Matrix queryDown, keyValueDown, keyValueUp;  // without rows elsewhere; keyValueUp also where it is absorbed
  // [headCount] keyValueUp by its parts, where it is absorbed: the key rows transposed [keyValueRank, ownKeySize], the value
  // rows [valueHeadSize, keyValueRank]
  std::vector<Matrix> keyUpTransposed, valueUp;
  Matrix gate, up, down;  // what every token passes; without rows (no panels) where a layer has nothing but experts
  Matrix router;          // without rows in a dense layer; never packed
  std::vector<MlpMatrices<Matrix>> experts;
};

// Every matrix of a layer that may be packed, in a fixed order; also those without rows.
template <typename Layer, typename Visit>
void visitMatrices(Layer& layer, const Visit& visit) {
  for (auto* one : {&layer.q, &layer.o, &layer.k, &layer.v, &layer.queryDown, &layer.keyValueDown, &layer.keyValueUp}) visit(*one);
  for (auto& one : layer.keyUpTransposed) visit(one);
  for (auto& one : layer.valueUp) visit(one);
  for (auto* one : {&layer.gate, &layer.up, &layer.down}) visit(*one);
  for (auto& expert : layer.experts) {
    for (auto* one : {&expert.gate, &expert.up, &expert.down}) visit(*one);
  }
}

// Matrices of one shape are walked alike.
struct LinearShape {
  int64_t rows, columns;
};

struct LayerVectors {
  std::vector<float> inputNorm, postAttentionNorm;
  std::vector<float> qBias, kBias, vBias, qNorm, kNorm, routerBias, queryNorm, keyValueNorm;  // empty where the model has none
};

struct Model {
  ModelShape shape;
  Tensor embedding, head;
  std::vector<float> finalNorm;
  std::vector<LayerMatrices<Tensor>> matrices;
  std::vector<LayerVectors> vectors;
  std::vector<LinearShape> linearShapes;  // all that there are, in the order of visitMatrices, the LM head's last
  std::vector<std::vector<float>> transposed;  // what keyUpTransposed points to, by layer
  std::vector<std::unique_ptr<MappedFile>> files;
  std::vector<std::string> paths;  // of `files`
};

// Throws NativeFault where the shape is not one that the kernels can run.
void checkShape(const ModelShape& shape);
// Maps the tensor's file (once) and checks that [rows, columns] and its bytes are what they must be.
Tensor mapTensor(Model& model, const TensorSource& source, int64_t rows, int64_t columns);
// The same for a vector [size], read into float32.
std::vector<float> readVector(Model& model, const TensorSource& source, int64_t size);
// Fills linearShapes, and names each matrix's.
void listLinearShapes(Model& model);
// Takes keyValueUp apart into keyUpTransposed and valueUp, and leaves it without rows.
void absorbKeyValueUp(Model& model, LayerMatrices<Tensor>& matrices);

}  // namespace variator
