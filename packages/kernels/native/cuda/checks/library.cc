// The library through its C ABI, with a small random model: what it refuses and in which words; that rules, scores and draws
// are the CPU engine's for the logits it gives; that drafts yield what their tokens would one by one.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "../../logit_rules.h"
#include "../../logprobs.h"
#include "../../sampling.h"
#include "tiny_model.h"

namespace variator::cuda {
namespace {

using namespace tiny;

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

// Decoding rows by wgmma (heads of 64), by graphs and without: the same bits either way, and but for rounding those of mma.
void checkDecode(CheckRun& run) {
  TinyModel tiny(run.seed + 130, 64);
  const Opened opened(run, tiny);
  VariatorCudaPath hopper = eager, graphs = eager;
  hopper.decode = graphs.decode = VARIATOR_CUDA_DECODE_WGMMA;
  graphs.usesGraphs = 1;
  VariatorCudaPath fp8 = hopper;
  fp8.kvFormat = VARIATOR_CUDA_KV_FP8;
  run.same("a cache in fp8 is refused", variatorCudaPrepare(opened.model, opened.cache, &fp8, nullptr) != 0, 1);
  AnyStep prompts;
  for (const int32_t count : {16, 2, 6}) {
    std::vector<int32_t> tokens;
    for (int32_t i = 0; i < count; i++) tokens.push_back(static_cast<int32_t>(tiny.random.below(vocabulary)));
    prompts.add(static_cast<int32_t>(prompts.contexts.size()), tokens, 0, tiny.random);
  }
  AnyStep step;
  step.wantsLogits = true;
  for (int32_t s = 0; s < 3; s++) step.add(s, {static_cast<int32_t>(tiny.random.below(vocabulary))}, std::vector<int32_t>{16, 2, 6}[s], tiny.random);
  std::vector<std::vector<float>> logits;
  for (const VariatorCudaPath& path : {eager, hopper, graphs}) {
    run.same("a path is prepared", variatorCudaPrepare(opened.model, opened.cache, &path, nullptr), 0);
    run.same("prompts run", prompts.run(opened, path), 0);
    run.same("tokens run", step.run(opened, path), 0);
    run.same("by a graph", step.result.isGraph, path.usesGraphs);
    logits.push_back(step.logits);
  }
  for (size_t i = 0; i < logits[0].size(); i++) run.near("logits, decoding by wgmma", logits[1][i], logits[0][i], 0.03, 0.06);
  run.same("another kernel has run", logits[0] != logits[1], 1);
  run.sameBytes("by a graph and without", logits[2], logits[1]);
}

}  // namespace

void checkLibrary(CheckRun& run) {
  checkRefusals(run);
  checkDraws(run);
  checkPrefill(run);
  checkDecode(run);
}

}  // namespace variator::cuda
