// `golden` and `invariance` of the runner. Golden tokens are float32's; weights and activations here are bf16, so near ties
// may fall otherwise: the golden tokens are fed whatever was drawn, and the share of positions that agree is the figure.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "../../native_fault.h"
#include "../linear.h"
#include "commands.h"
#include "sequences.h"

namespace variator::cuda {
namespace {

constexpr VariatorCudaPath exactPath{VARIATOR_CUDA_LINEAR_MMA, VARIATOR_CUDA_WEIGHTS_BF16, VARIATOR_CUDA_KV_BF16, 256, 0, 2, 4, 1};

int32_t linearOf(const std::string& name) {
  if (name == "mma") return VARIATOR_CUDA_LINEAR_MMA;
  if (name == "gemv") return VARIATOR_CUDA_LINEAR_GEMV;
  if (name == "wgmma") return VARIATOR_CUDA_LINEAR_WGMMA;
  if (name == "library") return VARIATOR_CUDA_LINEAR_LIBRARY;
  if (name == "skinny") return VARIATOR_CUDA_LINEAR_SKINNY;
  throw NativeFault("--linear: there is no " + name);
}

int32_t weightsOf(const std::string& name) {
  if (name == "bf16") return VARIATOR_CUDA_WEIGHTS_BF16;
  if (name == "e4m3") return VARIATOR_CUDA_WEIGHTS_E4M3;
  if (name == "int4") return VARIATOR_CUDA_WEIGHTS_INT4;
  throw NativeFault("--weights: there is no " + name);
}

int32_t kvOf(const std::string& name) {
  if (name == "bf16") return VARIATOR_CUDA_KV_BF16;
  if (name == "fp8") return VARIATOR_CUDA_KV_FP8;
  throw NativeFault("--kv: there is no " + name);
}

int32_t decodeOf(const std::string& name) {
  if (name == "mma") return VARIATOR_CUDA_DECODE_MMA;
  if (name == "wgmma") return VARIATOR_CUDA_DECODE_WGMMA;
  throw NativeFault("--decode: there is no " + name);
}

struct Agreement {
  int64_t agreed = 0, all = 0;
};

// All cases in one batch: prompts in chunks, then one golden token after another.
Agreement agreementOf(const GoldenModel& model, const VariatorCudaPath& path, int32_t chunkTokens, int32_t mostGreedy) {
  size_t longest = 0;
  for (const GoldenCase& one : model.cases) longest = std::max(longest, one.prompt.size() + one.greedy.size());
  const auto count = static_cast<int32_t>(model.cases.size());
  Sequences sequences(model.source(), count, static_cast<int32_t>(longest), count * chunkTokens, path);
  Agreement agreement;
  for (;;) {
    std::vector<Part> parts;
    std::vector<int32_t> wanted;  // the golden token that follows each part, or -1
    for (int32_t i = 0; i < count; i++) {
      const GoldenCase& one = model.cases[i];
      const auto length = static_cast<size_t>(sequences.lengthOf(i)), promptSize = one.prompt.size();
      const size_t greedySize = std::min<size_t>(one.greedy.size(), static_cast<size_t>(mostGreedy));
      if (length + 1 > promptSize + greedySize - 1 && length >= promptSize) continue;
      Part part{i, {}};
      if (length < promptSize) {
        const size_t end = std::min(promptSize, length + static_cast<size_t>(chunkTokens));
        part.tokens.assign(one.prompt.begin() + static_cast<int64_t>(length), one.prompt.begin() + static_cast<int64_t>(end));
        wanted.push_back(end == promptSize ? one.greedy[0] : -1);
      } else {
        part.tokens = {one.greedy[length - promptSize]};
        wanted.push_back(one.greedy[length - promptSize + 1]);
      }
      parts.push_back(part);
    }
    if (parts.empty()) return agreement;
    const StepOutcome outcome = sequences.step(parts, false);
    for (size_t i = 0; i < parts.size(); i++) {
      if (wanted[i] < 0) continue;
      agreement.all++;
      agreement.agreed += outcome.sampled[i] == wanted[i] ? 1 : 0;
    }
  }
}

}  // namespace

int runGolden(const std::vector<std::string>& arguments) {
  VariatorCudaPath path = exactPath;
  int32_t chunkTokens = 64, mostGreedy = 1 << 20;
  double least = 0.9;
  std::vector<std::string> files;
  for (size_t i = 0; i < arguments.size(); i++) {
    const bool hasValue = i + 1 < arguments.size();
    if (arguments[i] == "--linear" && hasValue) path.linear = linearOf(arguments[++i]);
    else if (arguments[i] == "--weights" && hasValue) path.weights = weightsOf(arguments[++i]);
    else if (arguments[i] == "--kv" && hasValue) path.kvFormat = kvOf(arguments[++i]);
    else if (arguments[i] == "--decode" && hasValue) path.decode = decodeOf(arguments[++i]);
    else if (arguments[i] == "--chunk" && hasValue) chunkTokens = std::atoi(arguments[++i].c_str());
    else if (arguments[i] == "--tokens" && hasValue) mostGreedy = std::atoi(arguments[++i].c_str());
    else if (arguments[i] == "--least" && hasValue) least = std::atof(arguments[++i].c_str());
    else if (arguments[i].compare(0, 2, "--") == 0) return 2;
    else files.push_back(arguments[i]);
  }
  if (files.empty() || chunkTokens < 1 || mostGreedy < 1) return 2;
  bool isGood = true;
  for (const std::string& file : files) {
    const GoldenModel model(file);
    const Agreement agreement = agreementOf(model, path, chunkTokens, mostGreedy);
    const double share = static_cast<double>(agreement.agreed) / static_cast<double>(agreement.all);
    isGood = isGood && share >= least;
    std::printf("%-6s %-16s %lld of %lld golden tokens (%.1f %%)\n", share >= least ? "ok" : "WRONG", model.name.c_str(), static_cast<long long>(agreement.agreed),
                static_cast<long long>(agreement.all), 100 * share);
  }
  return isGood ? 0 : 1;
}

int runInvariance(const std::vector<std::string>& arguments) {
  bool isGood = true;
  std::vector<std::string> files;
  VariatorCudaPath chosen = exactPath;
  for (size_t i = 0; i < arguments.size(); i++) {
    if (arguments[i] == "--weights" && i + 1 < arguments.size()) chosen.weights = weightsOf(arguments[++i]);
    else if (arguments[i] == "--kv" && i + 1 < arguments.size()) chosen.kvFormat = kvOf(arguments[++i]);
    else files.push_back(arguments[i]);
  }
  if (files.empty()) return 2;
  for (const std::string& file : files) {
    const GoldenModel model(file);
    const auto count = static_cast<int32_t>(model.cases.size());
    // The longest prompt is the one that is watched; the others are its crowd.
    int32_t watched = 0;
    for (int32_t i = 0; i < count; i++) {
      if (model.cases[i].prompt.size() > model.cases[watched].prompt.size()) watched = i;
    }
    const auto& prompt = model.cases[watched].prompt;
    const auto& greedy = model.cases[watched].greedy;
    const auto tokensEach = static_cast<int32_t>(prompt.size() + greedy.size());
    constexpr int32_t decodeCount = 3;
    // Logits at the prompt's end and of three tokens after it.
    const auto logitsOf = [&](const VariatorCudaPath& path, int32_t chunkTokens, bool isCrowded) {
      Sequences sequences(model.source(), count, tokensEach, 4096 < tokensEach * count ? 4096 : tokensEach * count, path);
      std::vector<std::vector<float>> all;
      for (int32_t fed = 0; fed < static_cast<int32_t>(prompt.size()) + decodeCount;) {
        const auto promptSize = static_cast<int32_t>(prompt.size());
        Part own{watched, {}};
        if (fed < promptSize) own.tokens.assign(prompt.begin() + fed, prompt.begin() + std::min(promptSize, fed + chunkTokens));
        else own.tokens = {greedy[fed - promptSize]};
        fed += static_cast<int32_t>(own.tokens.size());
        std::vector<Part> parts;
        for (int32_t i = 0; isCrowded && i < count; i++) {
          if (i == watched) continue;
          // Others come and go with one token or some.
          const auto& theirs = model.cases[i].prompt;
          if (sequences.lengthOf(i) + 3 >= tokensEach) continue;
          parts.push_back({i, i % 2 == 0 ? std::vector<int32_t>{theirs[0]} : std::vector<int32_t>{theirs[0], theirs[theirs.size() - 1]}});
        }
        const size_t at = parts.size() / 2;
        parts.insert(parts.begin() + static_cast<int64_t>(at), own);
        const StepOutcome outcome = sequences.step(parts, true);
        if (fed >= promptSize) all.push_back(outcome.logits[at]);
      }
      return all;
    };
    const auto expected = logitsOf(chosen, 1 << 20, false);
    const auto compare = [&](const char* what, const std::vector<std::vector<float>>& got) {
      bool isSame = got.size() == expected.size();
      for (size_t i = 0; isSame && i < got.size(); i++) {
        isSame = got[i].size() == expected[i].size() && std::memcmp(got[i].data(), expected[i].data(), got[i].size() * 4) == 0;
      }
      isGood = isGood && isSame;
      std::printf("%-6s %-16s the same bits %s\n", isSame ? "ok" : "WRONG", model.name.c_str(), what);
    };
    compare("in a crowd", logitsOf(chosen, 1 << 20, true));
    compare("in chunks of 7, in a crowd", logitsOf(chosen, 7, true));
    compare("token by token", logitsOf(chosen, 1, false));
    VariatorCudaPath path = chosen;
    path.usesGraphs = 0;
    compare("without graphs, in chunks of 33", logitsOf(path, 33, false));
    path.mmaTile = variatorCudaMmaTileCount();
    compare("with the largest tile throughout", logitsOf(path, 64, false));
  }
  return isGood ? 0 : 1;
}

}  // namespace variator::cuda
