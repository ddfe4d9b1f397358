// Runs sequences of one model through the library's C ABI without a scheduler: each owns blocks of its own, scattered over the cache.
// Used by the runner's golden checks and timings of steps; refuses sequences longer than it was made for.
#pragma once
#include <cstdint>
#include <vector>

#include "golden_model.h"

namespace variator::cuda {

// What a step computes of one sequence, onto what is in its cache already.
struct Part {
  int32_t sequence;
  std::vector<int32_t> tokens;
};

struct StepOutcome {
  std::vector<int32_t> sampled;  // by part
  std::vector<std::vector<float>> logits;
  VariatorCudaResult result;
};

class Sequences {
 public:
  Sequences(const VariatorCudaModelSource& source, int32_t sequenceCount, int32_t tokensEach, int32_t mostTokens, const VariatorCudaPath& path);
  ~Sequences();
  Sequences(const Sequences&) = delete;
  Sequences& operator=(const Sequences&) = delete;

  // Steps go by this path from now on; what is in the cache stays, in the path's format.
  void use(const VariatorCudaPath& path);
  // Greedy; every part yields a token.
  StepOutcome step(const std::vector<Part>& parts, bool isLogitsWanted);
  void rewind(int32_t sequence, int32_t length) { lengths_[sequence] = length; }
  int32_t lengthOf(int32_t sequence) const { return lengths_[sequence]; }

 private:
  VariatorCudaModel* model_ = nullptr;
  VariatorCudaKvCache* cache_ = nullptr;
  VariatorCudaPath path_;
  int64_t vocabularySize_;
  int32_t blocksEach_;
  std::vector<int32_t> tables_, lengths_;
};

}  // namespace variator::cuda
