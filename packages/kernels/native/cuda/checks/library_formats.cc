// The library through its C ABI on paths of other formats: weights in e4m3 and 4 bits, a cache in e4m3, switched live.
#include <string>
#include <vector>

#include "tiny_model.h"

namespace variator::cuda {
namespace {

using namespace tiny;

// Weights that every format holds as they are: a prompt and tokens after it, each on another path over the same cache, give
// the logits of bf16: by mma to the bit (matrices of one group of columns have one order of sums), by GEMV within rounding.
void checkWeightFormats(CheckRun& run) {
  TinyModel tiny(run.seed + 130, 16, 64, true);
  const Opened opened(run, tiny);
  int64_t bf16Bytes = 0, allBytes = 0;
  variatorCudaWeightBytes(opened.model, &bf16Bytes);
  std::vector<std::vector<float>> wanted;
  const auto prompt = std::vector<int32_t>{3, 1, 4, 1, 5, 9, 2, 6};
  for (const int32_t linear : {VARIATOR_CUDA_LINEAR_MMA, VARIATOR_CUDA_LINEAR_GEMV}) {
    for (const int32_t first : {VARIATOR_CUDA_WEIGHTS_BF16, VARIATOR_CUDA_WEIGHTS_E4M3, VARIATOR_CUDA_WEIGHTS_INT4}) {
      for (int32_t i = 0; i < 4; i++) {
        VariatorCudaPath path = eager;
        path.linear = linear;
        path.weights = (first + i) % 3;
        path.usesGraphs = i % 2;
        run.same("a path of another format is prepared", variatorCudaPrepare(opened.model, opened.cache, &path, nullptr), 0);
        AnyStep step;
        step.wantsLogits = true;
        if (i == 0) step.add(first, prompt, 0, tiny.random);
        else step.add(first, {i}, 7 + i, tiny.random);
        run.same("a step runs on it", step.run(opened, path), 0);
        const std::string what = "logits by linear " + std::to_string(linear) + ", weights " + std::to_string(path.weights);
        if (static_cast<size_t>(i) >= wanted.size()) wanted.push_back(step.logits);
        else if (linear == VARIATOR_CUDA_LINEAR_MMA) run.sameBytes(what, step.logits, wanted[i]);
        else for (size_t k = 0; k < step.logits.size(); k++) run.near(what, step.logits[k], wanted[i][k], 0.01, 0.01);
      }
    }
  }
  variatorCudaWeightBytes(opened.model, &allBytes);
  run.same("what codes take is counted", allBytes > bf16Bytes, 1);
}

// A prompt in bf16, tokens after it in fp8 on the converted cache, and back: the logits stay near those of bf16 throughout, and
// a step on a cache in another format than its path's is refused.
void checkKvFormats(CheckRun& run) {
  TinyModel tiny(run.seed + 170, 32);
  const Opened opened(run, tiny);
  VariatorCudaPath fp8 = eager;
  fp8.kvFormat = VARIATOR_CUDA_KV_FP8;
  fp8.usesGraphs = 1;
  for (const VariatorCudaPath& path : {eager, fp8}) run.same("a path is prepared for either format", variatorCudaPrepare(opened.model, opened.cache, &path, nullptr), 0);
  const auto expectFault = [&](int32_t status, const void* handle, const char* words) {
    run.same(std::string("refused: ") + words, status != 0, 1);
    run.same(std::string("says ") + words + ", not " + variatorCudaLastError(handle), std::string(variatorCudaLastError(handle)).find(words) != std::string::npos, 1);
  };
  int32_t bf16Count = 0, fp8Count = 0;
  variatorCudaKvBlockCount(opened.cache, "bf16", &bf16Count);
  variatorCudaKvBlockCount(opened.cache, "fp8", &fp8Count);
  run.same("blocks in bf16", bf16Count, 4 * blocksEach);
  run.same("blocks in fp8", fp8Count > bf16Count * 3 / 2, 1);
  expectFault(variatorCudaKvBlockCount(opened.cache, "int8", &fp8Count), nullptr, "bf16 and fp8, not int8");
  const std::vector<int32_t> wrong = {0, bf16Count}, none = {3, 3};
  expectFault(variatorCudaConvertKvCache(opened.cache, "fp8", wrong.data(), 2, nullptr), opened.cache, "blockIds");
  expectFault(variatorCudaConvertKvCache(opened.cache, "fp8", none.data(), 2, nullptr), opened.cache, "blockIds");

  std::vector<std::vector<float>> wanted;
  for (const bool isSwitched : {false, true}) {
    const int32_t slot = isSwitched ? 1 : 0;
    for (int32_t i = 0; i < 5; i++) {
      const bool isFp8 = isSwitched && (i == 1 || i == 2);
      if (isSwitched && (i == 1 || i == 3)) {
        std::vector<int32_t> own;
        for (int32_t b = 0; b < blocksEach; b++) own.push_back(slot + 4 * b);
        run.same("a cache is converted", variatorCudaConvertKvCache(opened.cache, isFp8 ? "fp8" : "bf16", own.data(), blocksEach, nullptr), 0);
      }
      AnyStep step;
      step.wantsLogits = true;
      if (i == 0) step.add(slot, {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3}, 0, tiny.random);
      else step.add(slot, {i}, 17 + i, tiny.random);
      run.same("a step runs", step.run(opened, isFp8 ? fp8 : eager), 0);
      if (!isSwitched) wanted.push_back(step.logits);
      else for (size_t k = 0; k < step.logits.size(); k++) run.near("logits across formats of the cache", step.logits[k], wanted[i][k], 0.1, 0.4);
      if (isSwitched && i == 1) {
        AnyStep refused;
        refused.add(slot, {1}, 19, tiny.random);
        expectFault(refused.run(opened, eager), opened.model, "is in fp8, and the path reads bf16");
      }
      if (isFp8) run.same("another kernel has run", step.logits != wanted[i], 1);
    }
  }
}

}  // namespace

void checkLibraryFormats(CheckRun& run) {
  checkWeightFormats(run);
  checkKvFormats(run);
}

}  // namespace variator::cuda
