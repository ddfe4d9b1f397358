// The library through its C ABI, with a small random model: what it refuses and in which words; that rules, scores and draws
// are the CPU engine's for the logits it gives; that drafts yield what their tokens would one by one.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <numeric>
#include <string>

#include "../../logit_rules.h"
#include "../../logprobs.h"
#include "../../native_fault.h"
#include "../../sampling.h"
#include "../variator_cuda.h"
#include "checks.h"

namespace variator::cuda {
namespace {

constexpr int32_t hidden = 32, heads = 4, kvHeads = 2, vocabulary = 40, layers = 2, blocksEach = 3;

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

constexpr VariatorCudaLimits limits{24, 4, 20, blocksEach};
constexpr VariatorCudaPath eager{VARIATOR_CUDA_LINEAR_MMA, VARIATOR_CUDA_WEIGHTS_BF16, VARIATOR_CUDA_KV_BF16, 64, 0, 1, 4, 0};

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

void checkRefusals(CheckRun& run) {
  TinyModel tiny(run.seed);
  VariatorCudaModel* model = nullptr;
  const auto refuses = [&](const char* words, const VariatorCudaModelSource& source) {
    run.same(std::string("refused: ") + words, variatorCudaOpenModel(&source, &limits, &model) != 0, 1);
    run.same(std::string("says ") + words + ", not " + variatorCudaLastError(nullptr), std::string(variatorCudaLastError(nullptr)).find(words) != std::string::npos, 1);
  };
  VariatorCudaModelSource other = tiny.source;
  other.expertCount = 8;
  refuses("experts", other);
  other = tiny.source;
  other.headSize = 24;
  refuses("heads of 24 dimensions", other);
  other = tiny.source;
  other.finalNorm.file = nullptr;
  refuses("finalNorm", other);
  other = tiny.source;
  other.embedding.rows = 39;
  refuses("is [39, 32], but the shape needs [40, 32]", other);
  other = tiny.source;
  other.head.offset = tiny.offset;
  refuses("ends beyond the file", other);

  const Opened opened(run, tiny);
  VariatorCudaKvCache* cache = nullptr;
  run.same("int8 caches are refused", variatorCudaCreateKvCache(opened.model, 4, 16, "int8", &cache) != 0, 1);
  const auto stepRefuses = [&](const char* words, AnyStep& step) {
    run.same(std::string("refused: ") + words, step.run(opened, eager) != 0, 1);
    run.same(std::string("says ") + words + ", not " + variatorCudaLastError(opened.model), std::string(variatorCudaLastError(opened.model)).find(words) != std::string::npos, 1);
  };
  AnyStep sound;
  sound.add(0, {1, 2}, 0, tiny.random);
  AnyStep step = sound;
  stepRefuses("not prepared", step);
  run.same("a path is prepared", variatorCudaPrepare(opened.model, opened.cache, &eager, nullptr), 0);
  step = sound;
  step.tables[0] = 4 * blocksEach;
  stepRefuses("blockTables[0]: block 12 is not one of 12", step);
  step = sound;
  step.tokens[1] = vocabulary;
  stepRefuses("tokenIds: 40 is not one of 40", step);
  step = sound;
  step.contexts[0] = 47;
  stepRefuses("blockTables[0]: is too short for 49 tokens", step);
  step = sound;
  step.drafts[0] = 2;
  stepRefuses("draftCounts[0]", step);
  step = sound;
  step.topPs[0] = 0;
  stepRefuses("topPs[0]", step);
  VariatorCudaPath int4 = eager;
  int4.weights = VARIATOR_CUDA_WEIGHTS_INT4;
  run.same("columns that do not fit are refused", variatorCudaPrepare(opened.model, opened.cache, &int4, nullptr) != 0, 1);
  run.same("in words", std::string(variatorCudaLastError(opened.model)).find("48 columns do not fit") != std::string::npos, 1);
  int4.linear = VARIATOR_CUDA_LINEAR_WGMMA;
  run.same("4 bits by wgmma are refused", variatorCudaPrepare(opened.model, opened.cache, &int4, nullptr) != 0, 1);
  run.same("a sound step runs after all that", sound.run(opened, eager), 0);
}

void checkDraws(CheckRun& run) {
  TinyModel tiny(run.seed + 50);
  const Opened opened(run, tiny);
  run.same("a path is prepared", variatorCudaPrepare(opened.model, opened.cache, &eager, nullptr), 0);
  Random& random = tiny.random;
  const auto tokensOf = [&](int32_t count) {
    std::vector<int32_t> all;
    for (int32_t i = 0; i < count; i++) all.push_back(static_cast<int32_t>(random.below(vocabulary)));
    return all;
  };
  AnyStep s;
  s.hasRules = s.hasScores = s.wantsLogits = true;
  s.add(0, tokensOf(5), 0, random);
  // Rules of the first sequence: tokens seen, a bias, and bans of what would be likeliest.
  s.counted = {3, 7, 20};
  s.counts = {0, 2, 5};
  s.biasTokens = {1, 2, 9};
  s.biases = {4, -std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()};
  s.countStarts.back() = s.biasStarts.back() = 3;
  s.repetition[0] = 1.3f;
  s.frequency[0] = 0.4f;
  s.presence[0] = -0.2f;
  s.add(1, tokensOf(1), 0, random);
  s.topCounts[1] = 4;
  s.add(2, tokensOf(3), 0, random);
  s.topCounts[2] = 2;
  s.scored.assign(9, -1);
  s.scored[6] = 5;
  s.scored[7] = 11;
  s.add(3, tokensOf(2), 0, random);
  s.isSampled[3] = 0;
  s.scored.push_back(-1);
  s.scored.push_back(-1);
  run.same("a step with rules and scores runs", s.run(opened, eager), 0);

  SamplingScratch scratch;
  scratch.weights.resize(vocabulary);
  scratch.candidates.resize(vocabulary);
  const LogitRules rules{s.repetition, s.frequency, s.presence, s.countStarts, s.counted, s.counts, s.biasStarts, s.biasTokens, s.biases};
  for (int32_t i = 0; i < 3; i++) {
    std::vector<float> logits(s.logits.begin() + i * vocabulary, s.logits.begin() + (i + 1) * vocabulary);
    Sampling sampling{s.temperatures[i], s.topPs[i], s.topKs[i], s.minPs[i], false, s.seeds[2 * i] | static_cast<uint64_t>(s.seeds[2 * i + 1]) << 32};
    if (rules.changesLogits(i)) sampling.hasBans = applyRules(rules, i, logits.data());
    run.same("the token drawn for sequence " + std::to_string(i), s.sampled[i], sampleToken(logits.data(), vocabulary, sampling, s.starts[i + 1] - s.starts[i], scratch));
  }
  run.same("nothing is drawn where nothing is asked for", s.sampled[3], -1);
  // Entries: 5 of sequence 1's token; then 3 each of two scored tokens and a drawn one of sequence 2.
  std::vector<int32_t> ids(5);
  std::vector<float> probabilities(5);
  scoreRow(s.logits.data() + vocabulary, vocabulary, s.sampled[1], 4, scratch.weights, ids.data(), probabilities.data());
  run.sameBytes("scores of a drawn token", std::vector<float>(s.logprobs.begin(), s.logprobs.begin() + 5), probabilities);
  run.sameBytes("tokens of its scores", std::vector<int32_t>(s.logprobTokens.begin(), s.logprobTokens.begin() + 5), ids);
  ids.resize(3);
  probabilities.resize(3);
  scoreRow(s.logits.data() + 2 * vocabulary, vocabulary, s.sampled[2], 2, scratch.weights, ids.data(), probabilities.data());
  run.sameBytes("scores behind those of scored tokens", std::vector<float>(s.logprobs.begin() + 11, s.logprobs.begin() + 14), probabilities);
  run.same("the first scored token", s.logprobTokens[5], 5);
  run.same("the second scored token", s.logprobTokens[8], 11);
  run.same("memory behind the scores is left alone", s.logprobTokens[14], -7);

  // A prompt, then three tokens as drafts, and the same three one by one, eagerly and by graphs.
  const auto prompt = tokensOf(6), next = tokensOf(3);
  VariatorCudaPath graphs = eager;
  graphs.usesGraphs = 1;
  run.same("a path with graphs is prepared", variatorCudaPrepare(opened.model, opened.cache, &graphs, nullptr), 0);
  AnyStep first;
  first.add(0, prompt, 0, random);
  run.same("a prompt runs", first.run(opened, eager), 0);
  AnyStep drafted;
  drafted.add(0, next, 6, random);
  drafted.drafts[0] = 2;
  run.same("drafts run", drafted.run(opened, eager), 0);
  for (const VariatorCudaPath& path : {eager, graphs}) {
    for (int32_t i = 0; i < 3; i++) {
      AnyStep one;
      one.add(0, {next[i]}, 6 + i, random);
      one.temperatures = drafted.temperatures;
      one.seeds = drafted.seeds;
      run.same("a token runs", one.run(opened, path), 0);
      run.same("by a graph", one.result.isGraph, path.usesGraphs);
      run.same("a drafted token and one by itself", drafted.sampled[i], one.sampled[0]);
    }
  }
}

// Chunks by Hopper's own attention (heads of 64) beside the one that is always there: the same but for rounding.
void checkPrefill(CheckRun& run) {
  TinyModel tiny(run.seed + 90, 64);
  const Opened opened(run, tiny);
  VariatorCudaPath hopper = eager;
  hopper.linear = VARIATOR_CUDA_LINEAR_WGMMA;
  AnyStep step;
  step.wantsLogits = true;
  for (const int32_t count : {17, 1, 6}) {
    std::vector<int32_t> tokens;
    for (int32_t i = 0; i < count; i++) tokens.push_back(static_cast<int32_t>(tiny.random.below(vocabulary)));
    step.add(static_cast<int32_t>(step.contexts.size()), tokens, 0, tiny.random);
  }
  std::vector<float> logits[2];
  for (const VariatorCudaPath& path : {eager, hopper}) {
    run.same("a path is prepared", variatorCudaPrepare(opened.model, opened.cache, &path, nullptr), 0);
    run.same("chunks run", step.run(opened, path), 0);
    logits[path.linear == VARIATOR_CUDA_LINEAR_WGMMA ? 1 : 0] = step.logits;
  }
  for (size_t i = 0; i < logits[0].size(); i++) run.near("logits by wgmma", logits[1][i], logits[0][i], 0.03, 0.06);
  run.same("another kernel has run", logits[0] != logits[1], 1);
}

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

void checkLibrary(CheckRun& run) {
  checkRefusals(run);
  checkDraws(run);
  checkPrefill(run);
  checkWeightFormats(run);
  checkKvFormats(run);
}

}  // namespace variator::cuda
