// A small random model behind the library's C ABI, and steps of it with everything that a step can ask for. Used by the checks
// of the library.
#pragma once
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

#include "../../native_fault.h"
#include "../variator_cuda.h"
#include "checks.h"

namespace variator::cuda {

namespace tiny {

inline constexpr int32_t hidden = 32, heads = 4, kvHeads = 2, vocabulary = 40, layers = 2, blocksEach = 3;

// A file of random float32 that lives as long as this, and a source whose tensors lie in it. Where it is `isCoarse` every
// number is one of -7/16 .. 7/16, the first of a row 7/16: e4m3 and 4 bits, too, hold them as they are.
struct TinyModel {
  explicit TinyModel(uint64_t seed, int32_t headSize = 16, int32_t intermediate = 48, bool isCoarse = false) : random(seed) {
    for (int32_t i = 0; i < headSize / 2; i++) frequencies.push_back(std::pow(0.003f, 2.0f * static_cast<float>(i) / static_cast<float>(headSize)));
    std::string name = (std::filesystem::temp_directory_path() / "variator-cuda-XXXXXX").string();
    const int descriptor = mkstemp(name.data());
    if (descriptor < 0) throw NativeFault("a temporary file cannot be made");
    file = name;
    source = {layers, hidden, intermediate, heads, kvHeads, headSize, vocabulary, 256, 1e-5f, frequencies.data(), 1, windows.data(), 0, 0, 0,
              tensor("embedding", vocabulary, hidden), tensor("finalNorm", 1, hidden), tensor("head", vocabulary, hidden), layerSources};
    for (VariatorCudaLayer& layer : layerSources) {
      layer = {};
      layer.inputNorm = tensor("inputNorm", 1, hidden);
      layer.postAttentionNorm = tensor("postAttentionNorm", 1, hidden);
      layer.q = tensor("q", heads * headSize, hidden);
      layer.k = tensor("k", kvHeads * headSize, hidden);
      layer.v = tensor("v", kvHeads * headSize, hidden);
      layer.o = tensor("o", hidden, heads * headSize);
      layer.gate = tensor("gate", intermediate, hidden);
      layer.up = tensor("up", intermediate, hidden);
      layer.down = tensor("down", hidden, intermediate);
    }
    std::vector<float> values = random.normals(offset / 4, 0.5f);
    if (isCoarse) {
      for (float& one : values) one = static_cast<float>(random.below(15) - 7) / 16;
      for (const int64_t first : rowStarts) values[first] = 7.0f / 16;
    }
    const bool isWritten = write(descriptor, values.data(), static_cast<size_t>(offset)) == offset;
    close(descriptor);
    if (!isWritten) throw NativeFault("a temporary file cannot be written");
  }
  ~TinyModel() { unlink(file.c_str()); }
  TinyModel(const TinyModel&) = delete;
  TinyModel& operator=(const TinyModel&) = delete;

  VariatorCudaTensor tensor(const char* name, int64_t rows, int64_t columns) {
    const VariatorCudaTensor one{name, file.c_str(), "F32", offset, rows * columns * 4, rows, columns};
    for (int64_t row = 0; row < rows; row++) rowStarts.push_back(offset / 4 + row * columns);
    offset += rows * columns * 4;
    return one;
  }

  Random random;
  std::string file;
  int64_t offset = 0;
  std::vector<int64_t> rowStarts;
  std::vector<float> frequencies;
  std::vector<int32_t> windows = {0, 9};
  VariatorCudaLayer layerSources[layers];
  VariatorCudaModelSource source;
};

inline constexpr VariatorCudaLimits limits{24, 4, 20, blocksEach};
inline constexpr VariatorCudaPath eager{VARIATOR_CUDA_LINEAR_MMA, VARIATOR_CUDA_WEIGHTS_BF16, VARIATOR_CUDA_KV_BF16, 64, 0, 1, 4, 0};

struct Opened {
  Opened(CheckRun& run, const TinyModel& tiny) {
    run.same("a model opens", variatorCudaOpenModel(&tiny.source, &limits, &model), 0);
    run.same("a cache is made", variatorCudaCreateKvCache(model, 4 * blocksEach, 16, "bf16", &cache), 0);
  }
  ~Opened() {
    variatorCudaCloseKvCache(cache);
    variatorCudaCloseModel(model);
  }
  VariatorCudaModel* model = nullptr;
  VariatorCudaKvCache* cache = nullptr;
};

// A step of some sequences with everything that a step can ask for, and memory for its results.
struct AnyStep {
  std::vector<int32_t> tokens, starts{0}, contexts, tables, drafts, topKs, topCounts, scored, countStarts, counted, counts, biasStarts, biasTokens;
  std::vector<uint8_t> isSampled;
  std::vector<float> temperatures, topPs, minPs, repetition, frequency, presence, biases;
  std::vector<uint32_t> seeds;
  std::vector<int32_t> sampled, logprobTokens;
  std::vector<float> logits, logprobs;
  bool hasRules = false, hasScores = false, wantsLogits = false;
  VariatorCudaStep step{};
  VariatorCudaResult result{};

  void add(int32_t slot, const std::vector<int32_t>& own, int32_t context, Random& random) {
    tokens.insert(tokens.end(), own.begin(), own.end());
    starts.push_back(static_cast<int32_t>(tokens.size()));
    contexts.push_back(context);
    for (int32_t b = 0; b < blocksEach; b++) tables.push_back(slot + 4 * b);
    drafts.push_back(0);
    isSampled.push_back(1);
    temperatures.push_back(static_cast<float>(random.uniform()) + 0.2f);
    topPs.push_back(0.9f);
    minPs.push_back(0);
    topKs.push_back(20);
    seeds.push_back(static_cast<uint32_t>(random.bits()));
    seeds.push_back(static_cast<uint32_t>(slot));
    topCounts.push_back(-1);
    repetition.push_back(1);
    frequency.push_back(0);
    presence.push_back(0);
    for (auto* all : {&countStarts, &biasStarts}) {
      if (all->empty()) all->push_back(0);
    }
    countStarts.push_back(static_cast<int32_t>(counted.size()));
    biasStarts.push_back(static_cast<int32_t>(biases.size()));
  }
  int32_t run(const Opened& opened, const VariatorCudaPath& path) {
    const auto n = static_cast<int32_t>(contexts.size());
    scored.resize(tokens.size(), -1);
    step = {n, static_cast<int32_t>(tokens.size()), blocksEach, tokens.data(), starts.data(), contexts.data(), tables.data(), isSampled.data(), drafts.data(),
            temperatures.data(), topPs.data(), minPs.data(), topKs.data(), seeds.data(), hasRules ? repetition.data() : nullptr, frequency.data(), presence.data(),
            countStarts.data(), counted.data(), counts.data(), biasStarts.data(), biasTokens.data(), biases.data(), hasScores ? topCounts.data() : nullptr, scored.data(), wantsLogits ? 1 : 0};
    int64_t logprobCount = 0;
    variatorCudaLogprobCount(&step, &logprobCount);
    sampled.assign(static_cast<size_t>(n + std::accumulate(drafts.begin(), drafts.end(), 0)), -7);
    logits.assign(static_cast<size_t>(n * vocabulary), NAN);
    logprobTokens.assign(static_cast<size_t>(logprobCount) + 1, -7);
    logprobs.assign(static_cast<size_t>(logprobCount) + 1, NAN);
    result = {sampled.data(), logits.data(), logprobTokens.data(), logprobs.data(), 0, 0, 0, 0, 0};
    return variatorCudaRunStep(opened.model, opened.cache, &path, &step, &result);
  }
};

}  // namespace tiny
}  // namespace variator::cuda
