// See golden_model.h.
#include "golden_model.h"

#include <cstring>
#include <fstream>
#include <map>

#include "../../native_fault.h"

namespace variator::cuda {

void expectDone(int32_t status, const void* handle) {
  if (status != 0) throw NativeFault(variatorCudaLastError(handle));
}

VariatorCudaTensor& GoldenModel::placeOf(const std::string& tensor) {
  if (tensor == "embedding") return source_.embedding;
  if (tensor == "finalNorm") return source_.finalNorm;
  if (tensor == "head") return source_.head;
  static const std::map<std::string, VariatorCudaTensor VariatorCudaLayer::*> parts = {
      {"inputNorm", &VariatorCudaLayer::inputNorm}, {"q", &VariatorCudaLayer::q},         {"k", &VariatorCudaLayer::k},
      {"v", &VariatorCudaLayer::v},                 {"o", &VariatorCudaLayer::o},         {"qBias", &VariatorCudaLayer::qBias},
      {"kBias", &VariatorCudaLayer::kBias},         {"vBias", &VariatorCudaLayer::vBias}, {"qNorm", &VariatorCudaLayer::qNorm},
      {"kNorm", &VariatorCudaLayer::kNorm},         {"gate", &VariatorCudaLayer::gate},   {"up", &VariatorCudaLayer::up},
      {"down", &VariatorCudaLayer::down},           {"postAttentionNorm", &VariatorCudaLayer::postAttentionNorm}};
  const size_t dot = tensor.find('.');
  const auto part = dot == std::string::npos ? parts.end() : parts.find(tensor.substr(dot + 1));
  const size_t layer = dot == std::string::npos ? 0 : static_cast<size_t>(std::stoul(tensor.substr(0, dot)));
  if (part == parts.end() || layer >= layers_.size()) throw NativeFault("golden model: there is no tensor " + tensor);
  return layers_[layer].*(part->second);
}

GoldenModel::GoldenModel(const std::string& file) {
  std::ifstream in(file);
  std::string word;
  int version = 0;
  if (!(in >> word >> version) || word != "variator-golden" || version != 1) throw NativeFault(file + ": is not a golden model");
  const size_t slash = file.rfind('/'), dot = file.rfind(".golden");
  name = file.substr(slash == std::string::npos ? 0 : slash + 1, dot - (slash == std::string::npos ? 0 : slash + 1));
  weights_ = file.substr(0, dot) + ".weights";
  size_t tensorCount = 0;
  while (in >> word) {
    size_t count = 0;
    if (word == "shape") {
      VariatorCudaModelSource& s = source_;
      in >> s.layerCount >> s.hiddenSize >> s.intermediateSize >> s.headCount >> s.kvHeadCount >> s.headSize >> s.vocabularySize >> s.maxPositionCount;
      in >> s.isRopeInterleaved >> s.rmsNormEpsilon >> s.ropeAttentionFactor;
      layers_.resize(static_cast<size_t>(s.layerCount));
    } else if (word == "frequencies") {
      in >> count;
      frequencies_.resize(count);
      // Bits, so that nothing is lost on the way.
      for (float& one : frequencies_) {
        uint32_t bits = 0;
        in >> bits;
        std::memcpy(&one, &bits, 4);
      }
    } else if (word == "windows") {
      in >> count;
      windows_.resize(count);
      for (int32_t& one : windows_) in >> one;
    } else if (word == "tensors") {
      in >> tensorCount;
      names_.reserve(tensorCount);
      dtypes_.reserve(tensorCount);
    } else if (word == "tensor" && names_.size() < tensorCount) {
      std::string tensor, dtype;
      in >> tensor >> dtype;
      VariatorCudaTensor& place = placeOf(tensor);
      names_.push_back(tensor);
      dtypes_.push_back(dtype);
      place.name = names_.back().c_str();
      place.dtype = dtypes_.back().c_str();
      place.file = weights_.c_str();
      in >> place.rows >> place.columns >> place.offset >> place.byteLength;
    } else if (word == "case") {
      GoldenCase one;
      for (auto* tokens : {&one.prompt, &one.greedy}) {
        in >> count;
        tokens->resize(count);
        for (int32_t& token : *tokens) in >> token;
      }
      cases.push_back(one);
    } else {
      throw NativeFault(file + ": there is no " + word);
    }
    if (!in) throw NativeFault(file + ": ends within " + word);
  }
  source_.ropeInverseFrequencies = frequencies_.data();
  source_.windowTokens = windows_.data();
  source_.layers = layers_.data();
  if (cases.empty() || frequencies_.size() != static_cast<size_t>(source_.headSize / 2) || windows_.size() != layers_.size()) {
    throw NativeFault(file + ": is not whole");
  }
}

}  // namespace variator::cuda
