// See engine.h. The checks of a step stand here, before anything is launched.
#include "engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "native_fault.h"

namespace variator {
namespace {

double msSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

// Runs `work` and reports its fault as a sentence.
template <typename Work>
void settle(const Work& work, const Engine::Settled& settled) {
  std::string fault;
  try {
    work();
  } catch (const NativeFault& error) {
    fault = error.what();
  } catch (const std::bad_alloc&) {
    fault = "memory is not to be had for this step";
  }
  settled(fault);
}

void require(bool isMet, const std::string& fault) {
  if (!isMet) throw NativeFault(fault);
}

void requireSize(size_t size, int64_t expected, const char* name) {
  require(static_cast<int64_t>(size) == expected,
          std::string(name) + ": has " + std::to_string(size) + " entries, not " + std::to_string(expected));
}

void requireStarts(const std::vector<int32_t>& starts, int64_t count, size_t end, const char* name) {
  requireSize(starts.size(), count + 1, name);
  require(starts[0] == 0 && starts[count] == static_cast<int64_t>(end) && std::is_sorted(starts.begin(), starts.end()),
          std::string(name) + ": must rise from 0 to the length of its lists");
}

void requireTokens(const std::vector<int32_t>& tokenIds, int32_t least, int64_t vocabularySize, const char* name) {
  for (const int32_t token : tokenIds) {
    require(token >= least && token < vocabularySize,
            std::string(name) + ": " + std::to_string(token) + " is not one of " + std::to_string(vocabularySize));
  }
}

// The bounds keep every ruled logit a finite number or -infinity.
void checkRules(const LogitRules& rules, int64_t count, int64_t vocabularySize) {
  requireSize(rules.repetitionPenalties.size(), count, "repetitionPenalties");
  requireSize(rules.frequencyPenalties.size(), count, "frequencyPenalties");
  requireSize(rules.presencePenalties.size(), count, "presencePenalties");
  requireStarts(rules.countStarts, count, rules.countedTokenIds.size(), "countStarts");
  requireSize(rules.tokenCounts.size(), rules.countStarts[count], "tokenCounts");
  requireStarts(rules.biasStarts, count, rules.biasTokenIds.size(), "biasStarts");
  requireSize(rules.biases.size(), rules.biasStarts[count], "biases");
  requireTokens(rules.countedTokenIds, 0, vocabularySize, "countedTokenIds");
  requireTokens(rules.biasTokenIds, 0, vocabularySize, "biasTokenIds");
  for (const int32_t times : rules.tokenCounts) require(times >= 0, "tokenCounts: must not be negative");
  for (int64_t s = 0; s < count; s++) {
    const std::string who = "[" + std::to_string(s) + "]: ";
    const float repetition = rules.repetitionPenalties[s];
    require(repetition >= 0.01f && repetition <= 100, "repetitionPenalties" + who + "must be from 0.01 to 100");
    require(std::abs(rules.frequencyPenalties[s]) <= 2, "frequencyPenalties" + who + "must be from -2 to 2");
    require(std::abs(rules.presencePenalties[s]) <= 2, "presencePenalties" + who + "must be from -2 to 2");
    int64_t banCount = 0;
    for (int32_t i = rules.biasStarts[s]; i < rules.biasStarts[s + 1]; i++) {
      if (std::isinf(rules.biases[i]) && rules.biases[i] < 0) banCount++;
      else require(std::abs(rules.biases[i]) <= 100, "biases" + who + "must be from -100 to 100, or -infinity");
    }
    require(banCount < vocabularySize, "biases" + who + "leave no token to draw");
  }
}

void checkScoring(const Step& step, int64_t vocabularySize) {
  const Scoring& scoring = *step.scoring;
  requireSize(scoring.topCounts.size(), step.sequenceCount(), "topCounts");
  requireSize(scoring.scoredTokenIds.size(), step.tokenCount(), "scoredTokenIds");
  requireTokens(scoring.scoredTokenIds, -1, vocabularySize, "scoredTokenIds");
  for (const int32_t topCount : scoring.topCounts) {
    require(topCount >= -1 && topCount <= std::min<int64_t>(vocabularySize, 128), "topCounts: must be from -1 to 128, within the vocabulary");
  }
}

}  // namespace

AttentionVariant parseAttention(const std::string& name) {
  if (name == "attention.reference") return AttentionVariant::Reference;
  if (name == "attention.float32") return AttentionVariant::Float32;
  if (name == "attention.bf16") return AttentionVariant::Bf16;
  if (name == "attention.int8") return AttentionVariant::Int8;
  throw NativeFault("attention: there is no variant " + name);
}

bool Engine::isPrepared(LinearVariant linear) const {
  const std::lock_guard<std::mutex> lock(packedMutex_);
  return linear.family == LinearFamily::Reference || packed_.count(packingOf(linear.family)) > 0;
}

void Engine::prepare(LinearVariant linear, PackedCache cache, std::shared_ptr<Prepared> result, Settled settled) {
  packing_.give([this, linear, cache = std::move(cache), result = std::move(result), settled = std::move(settled)] {
    const auto pack = [&] {
      const auto start = std::chrono::steady_clock::now();
      if (linear.family == LinearFamily::Reference) return;
      const LinearFamily packing = packingOf(linear.family);
      if (!isPrepared(linear)) {
        auto packed = std::make_shared<const PackedModel>(*model_, packing, cache);
        const std::lock_guard<std::mutex> lock(packedMutex_);
        packed_[packing] = std::move(packed);
      }
      result->packedBytes = packed_[packing]->byteLength();
      result->isFromCache = packed_[packing]->isFromCache();
      result->prepareMs = msSince(start);
    };
    settle(pack, settled);
  });
}

void Engine::run(std::shared_ptr<Step> step, std::shared_ptr<const KvCache> kvCache, Settled settled) {
  std::shared_ptr<const PackedModel> packed;
  if (step->linear.family != LinearFamily::Reference) {
    const std::lock_guard<std::mutex> lock(packedMutex_);
    packed = packed_[packingOf(step->linear.family)];
  }
  computing_.give([this, step = std::move(step), kvCache = std::move(kvCache), packed = std::move(packed),
                   settled = std::move(settled)] {
    const auto compute = [&] {
      foreignCpu_.begin();
      const int wanted = step->threadCount;
      step->threadCount = brake_.threadCount(wanted);
      step->assistantCount = step->threadCount == 1 ? wanted - 1 : 0;
      const auto start = std::chrono::steady_clock::now();
      runner_.run(*step, *kvCache, packed.get());
      step->deviceMs = msSince(start);
      step->foreignCpuShare = foreignCpu_.end();
      brake_.note(step->foreignCpuShare);
    };
    settle(compute, settled);
  });
}

void Engine::convert(std::shared_ptr<KvCache> kvCache, KvFormat format, std::vector<int32_t> blockIds,
                     std::shared_ptr<double> convertMs, Settled settled) {
  computing_.give([this, kvCache = std::move(kvCache), format, blockIds = std::move(blockIds),
                   convertMs = std::move(convertMs), settled = std::move(settled)] {
    const auto work = [&] {
      const auto start = std::chrono::steady_clock::now();
      kvCache->convert(format, blockIds, team_);
      *convertMs = msSince(start);
    };
    settle(work, settled);
  });
}

void Engine::time(LinearVariant linear, int threadCount, int64_t rowCount, std::vector<LinearTuning> tunings,
                  int32_t sampleCount, double limitMs, std::shared_ptr<LinearTimes> times, Settled settled) {
  std::shared_ptr<const PackedModel> packed;
  {
    const std::lock_guard<std::mutex> lock(packedMutex_);
    packed = packed_[packingOf(linear.family)];
  }
  computing_.give([this, linear, threadCount, rowCount, tunings = std::move(tunings), sampleCount, limitMs,
                   times = std::move(times), packed = std::move(packed), settled = std::move(settled)] {
    const auto work = [&] {
      *times = timeLinears(*model_, *packed, linear, team_, threadCount, rowCount, tunings, sampleCount, limitMs);
    };
    settle(work, settled);
  });
}

void Engine::timeAttention(AttentionVariant attention, int64_t splitTokens, int threadCount,
                           std::vector<AttentionShapeOfStep> shapes, std::vector<AttentionTuning> tunings, int32_t sampleCount,
                           double limitMs, std::shared_ptr<AttentionTimes> times, Settled settled) {
  computing_.give([this, attention, splitTokens, threadCount, shapes = std::move(shapes), tunings = std::move(tunings),
                   sampleCount, limitMs, times = std::move(times), settled = std::move(settled)] {
    const auto work = [&] {
      *times = variator::timeAttention(*model_, attention, splitTokens, runner_, team_, threadCount, shapes, tunings,
                                       sampleCount, limitMs);
    };
    settle(work, settled);
  });
}

void Engine::stop() {
  computing_.stop();
  packing_.stop();
  // Assistants read what is about to go.
  team_.stop();
}

void checkStep(const Step& step, const Engine& engine, const KvCache& kvCache) {
  const ModelShape& shape = engine.model().shape;
  require(kvCache.layerCount == shape.layerCount && kvCache.kvHeadCount == shape.cachedHeadCount() &&
              kvCache.headSize == shape.cachedKeySize() && kvCache.valueSize == shape.cachedValueSize(),
          "kvCache: was made for another model");
  require(kvCache.format() == kvFormatOf(step.attention), "attention: the kvCache is in the format of another variant");
  require(engine.isPrepared(step.linear), "linear: the variant is not prepared");
  const size_t tuningCount = engine.model().linearShapes.size() * rowBucketCount;
  require(step.dispatch.tunings.empty() || step.dispatch.tunings.size() == tuningCount,
          "tunings: must be [" + std::to_string(tuningCount) + ", 4]");
  require((step.splitTokens & (step.splitTokens - 1)) == 0, "splitTokens: must be a power of two");
  constexpr size_t attentionTuningCount = attentionRowBucketCount * contextBucketCount;
  require(step.attentionDispatch.tunings.empty() || step.attentionDispatch.tunings.size() == attentionTuningCount,
          "attentionTunings: must be [" + std::to_string(attentionTuningCount) + ", 4]");
  require(step.threadCount >= 1 && step.threadCount <= engine.maxThreadCount(),
          "threadCount: must be from 1 to " + std::to_string(engine.maxThreadCount()));
  checkBatch(step, {shape.vocabularySize, shape.maxPositionCount, kvCache.blockCount(), kvCache.blockSize});
}

void checkBatch(const Step& step, const StepBounds& bounds) {
  const int64_t count = step.sequenceCount();
  require(count >= 1, "contextLengths: a step needs a sequence");
  requireSize(step.tokenStarts.size(), count + 1, "tokenStarts");
  requireSize(step.isSampled.size(), count, "isSampled");
  requireSize(step.draftCounts.size(), count, "draftCounts");
  requireSize(step.blockTables.size(), count * step.blockTableStride, "blockTables");
  require(step.tokenStarts[0] == 0, "tokenStarts: must begin with 0");
  for (int64_t s = 0; s < count; s++) {
    const std::string who = "[" + std::to_string(s) + "]: ";
    require(step.tokenStarts[s] < step.tokenStarts[s + 1], "tokenStarts" + who + "every sequence needs a token");
    require(step.draftCounts[s] >= 0 && step.draftCounts[s] < step.chunkLength(s),
            "draftCounts" + who + "must leave a token before the drafts");
    require(step.contextLengths[s] >= 0, "contextLengths" + who + "must not be negative");
    const int64_t length = step.contextLengths[s] + step.chunkLength(s);
    require(length <= bounds.maxPositionCount, "contextLengths" + who + "ends at position " + std::to_string(length) +
                                                  ", beyond the model's " + std::to_string(bounds.maxPositionCount));
    const int64_t blockCount = (length + bounds.blockSize - 1) / bounds.blockSize;
    require(blockCount <= step.blockTableStride, "blockTables" + who + "is too short for " + std::to_string(length) + " tokens");
    for (int64_t b = 0; b < blockCount; b++) {
      const int32_t block = step.blockTables[s * step.blockTableStride + b];
      require(block >= 0 && block < bounds.blockCount, "blockTables" + who + "block " + std::to_string(block) +
                                                            " is not one of " + std::to_string(bounds.blockCount));
    }
    const Sampling& sampling = step.samplings[s];
    require(std::isfinite(sampling.temperature) && sampling.temperature >= 0, "temperatures" + who + "must be 0 or more");
    require(sampling.topP > 0 && sampling.topP <= 1, "topPs" + who + "must be above 0 and at most 1");
    require(sampling.topK >= 0, "topKs" + who + "must be 0 or more");
    require(sampling.minP >= 0 && sampling.minP <= 1, "minPs" + who + "must be from 0 to 1");
  }
  if (step.rules) checkRules(*step.rules, count, bounds.vocabularySize);
  if (step.scoring) checkScoring(step, bounds.vocabularySize);
  for (int64_t s = 0; s < count; s++) {
    const bool isPlain = !(step.rules && step.rules->changesLogits(s)) && !(step.scoring && step.scoring->topCounts[s] >= 0);
    require(step.draftCounts[s] == 0 || (step.isSampled[s] != 0 && isPlain),
            "draftCounts[" + std::to_string(s) + "]: drafts need a sampled sequence without rules and scores");
  }
  requireSize(step.tokenIds.size(), step.tokenStarts[count], "tokenIds");
  requireTokens(step.tokenIds, 0, bounds.vocabularySize, "tokenIds");
}

void checkConversion(const std::vector<int32_t>& blockIds, KvFormat format, const KvCache& kvCache) {
  const int64_t blockCount = std::min(kvCache.blockCount(), kvCache.blockCountIn(format));
  for (size_t i = 0; i < blockIds.size(); i++) {
    require(blockIds[i] >= 0 && blockIds[i] < blockCount,
            "blockIds: " + std::to_string(blockIds[i]) + " is not one of " + std::to_string(blockCount));
    require(i == 0 || blockIds[i - 1] < blockIds[i], "blockIds: must ascend");
  }
}

}  // namespace variator
