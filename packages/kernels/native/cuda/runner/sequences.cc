// See sequences.h.
#include "sequences.h"

#include <algorithm>
#include <numeric>

#include "../../native_fault.h"

namespace variator::cuda {

Sequences::Sequences(const VariatorCudaModelSource& source, int32_t sequenceCount, int32_t tokensEach, int32_t mostTokens, const VariatorCudaPath& path)
    : path_(path), vocabularySize_(source.vocabularySize), blocksEach_((tokensEach + 15) / 16), lengths_(sequenceCount, 0) {
  const VariatorCudaLimits limits{std::max(mostTokens, sequenceCount), sequenceCount, sequenceCount, blocksEach_};
  expectDone(variatorCudaOpenModel(&source, &limits, &model_), nullptr);
  const int32_t blockCount = blocksEach_ * sequenceCount;
  expectDone(variatorCudaCreateKvCache(model_, blockCount, 16, path.kvFormat == VARIATOR_CUDA_KV_FP8 ? "fp8" : "bf16", &cache_), model_);
  use(path);
  tables_.resize(blockCount);
  std::iota(tables_.begin(), tables_.end(), 0);
  uint64_t state = 88172645463325252ull;
  for (int32_t i = blockCount - 1; i > 0; i--) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    std::swap(tables_[i], tables_[state % static_cast<uint64_t>(i + 1)]);
  }
}

void Sequences::use(const VariatorCudaPath& path) {
  if (path.kvFormat != path_.kvFormat) {
    std::vector<int32_t> blockIds(tables_.size());
    std::iota(blockIds.begin(), blockIds.end(), 0);
    const char* format = path.kvFormat == VARIATOR_CUDA_KV_FP8 ? "fp8" : "bf16";
    expectDone(variatorCudaConvertKvCache(cache_, format, blockIds.data(), static_cast<int32_t>(blockIds.size()), nullptr), cache_);
  }
  expectDone(variatorCudaPrepare(model_, cache_, &path, nullptr), model_);
  path_ = path;
}

Sequences::~Sequences() {
  variatorCudaCloseKvCache(cache_);
  variatorCudaCloseModel(model_);
}

StepOutcome Sequences::step(const std::vector<Part>& parts, bool isLogitsWanted) {
  const auto n = static_cast<int32_t>(parts.size());
  std::vector<int32_t> tokens, starts{0}, contexts, tables;
  for (const Part& part : parts) {
    tokens.insert(tokens.end(), part.tokens.begin(), part.tokens.end());
    starts.push_back(static_cast<int32_t>(tokens.size()));
    contexts.push_back(lengths_[part.sequence]);
    if (contexts.back() + static_cast<int32_t>(part.tokens.size()) > blocksEach_ * 16) throw NativeFault("a sequence is longer than it was made for");
    const auto table = tables_.begin() + part.sequence * blocksEach_;
    tables.insert(tables.end(), table, table + blocksEach_);
  }
  const std::vector<uint8_t> isSampled(n, 1);
  const std::vector<float> zeros(n, 0), ones(n, 1);
  const std::vector<int32_t> noTopKs(n, 0);
  const std::vector<uint32_t> seeds(2 * n, 0);
  VariatorCudaStep step{};
  step.sequenceCount = n;
  step.tokenCount = static_cast<int32_t>(tokens.size());
  step.blockTableStride = blocksEach_;
  step.tokenIds = tokens.data();
  step.tokenStarts = starts.data();
  step.contextLengths = contexts.data();
  step.blockTables = tables.data();
  step.isSampled = isSampled.data();
  step.temperatures = zeros.data();
  step.topPs = ones.data();
  step.minPs = zeros.data();
  step.topKs = noTopKs.data();
  step.seeds = seeds.data();
  step.isLogitsWanted = isLogitsWanted ? 1 : 0;
  StepOutcome outcome;
  outcome.sampled.resize(n);
  std::vector<float> logits(isLogitsWanted ? n * vocabularySize_ : 0);
  outcome.result = {};
  outcome.result.sampledTokenIds = outcome.sampled.data();
  outcome.result.logits = logits.data();
  expectDone(variatorCudaRunStep(model_, cache_, &path_, &step, &outcome.result), model_);
  for (int32_t i = 0; i < n; i++) {
    lengths_[parts[i].sequence] += static_cast<int32_t>(parts[i].tokens.size());
    if (isLogitsWanted) outcome.logits.emplace_back(logits.begin() + i * vocabularySize_, logits.begin() + (i + 1) * vocabularySize_);
  }
  return outcome;
}

}  // namespace variator::cuda
