// See cuda_engine.h.
#include "cuda_engine.h"

#include "native_fault.h"

namespace variator {

CudaStep::CudaStep(std::shared_ptr<Step> given, const VariatorCudaPath& chosen) : step(std::move(given)), path(chosen) {
  for (const Sampling& one : step->samplings) {
    temperatures_.push_back(one.temperature);
    topPs_.push_back(one.topP);
    topKs_.push_back(one.topK);
    minPs_.push_back(one.minP);
    seeds_.push_back(static_cast<uint32_t>(one.seed));
    seeds_.push_back(static_cast<uint32_t>(one.seed >> 32));
  }
  input.sequenceCount = static_cast<int32_t>(step->sequenceCount());
  input.tokenCount = static_cast<int32_t>(step->tokenCount());
  input.blockTableStride = static_cast<int32_t>(step->blockTableStride);
  input.tokenIds = step->tokenIds.data();
  input.tokenStarts = step->tokenStarts.data();
  input.contextLengths = step->contextLengths.data();
  input.blockTables = step->blockTables.data();
  input.isSampled = step->isSampled.data();
  input.draftCounts = step->draftCounts.data();
  input.temperatures = temperatures_.data();
  input.topPs = topPs_.data();
  input.minPs = minPs_.data();
  input.topKs = topKs_.data();
  input.seeds = seeds_.data();
  if (step->rules) {
    const LogitRules& rules = *step->rules;
    input.repetitionPenalties = rules.repetitionPenalties.data();
    input.frequencyPenalties = rules.frequencyPenalties.data();
    input.presencePenalties = rules.presencePenalties.data();
    input.countStarts = rules.countStarts.data();
    input.countedTokenIds = rules.countedTokenIds.data();
    input.tokenCounts = rules.tokenCounts.data();
    input.biasStarts = rules.biasStarts.data();
    input.biasTokenIds = rules.biasTokenIds.data();
    input.biases = rules.biases.data();
  }
  if (step->scoring) {
    input.topCounts = step->scoring->topCounts.data();
    input.scoredTokenIds = step->scoring->scoredTokenIds.data();
  }
  input.isLogitsWanted = step->isLogitsWanted ? 1 : 0;
}

CudaEngine::~CudaEngine() {
  stop();
  if (model_ != nullptr) library_->variatorCudaCloseModel(model_);
}

void CudaEngine::stop() {
  thread_.stop();
  isStopped_ = true;
}

void CudaEngine::give(std::function<void()> work, Settled settled) {
  thread_.give([this, work = std::move(work), settled = std::move(settled)] {
    std::string fault;
    try {
      work();
    } catch (const NativeFault& error) {
      fault = error.what();
      if (library_->isDeviceLost()) isDeviceLost_ = true;
    } catch (const std::bad_alloc&) {
      fault = "memory is not to be had for this step";
    }
    settled(fault);
  });
}

void CudaEngine::open(Settled settled) {
  give(
      [this] {
        library_->check(library_->variatorCudaOpenModel(&source_->source, &limits_, &model_), nullptr);
        library_->check(library_->variatorCudaWeightBytes(model_, &weightBytes_), model_);
      },
      std::move(settled));
}

void CudaEngine::createKvCache(int32_t blockCount, int32_t blockSize, const std::string& kvFormat,
                               std::shared_ptr<CudaKvCache> made, Settled settled) {
  give(
      [this, blockCount, blockSize, kvFormat, made = std::move(made)] {
        library_->check(library_->variatorCudaCreateKvCache(model_, blockCount, blockSize, kvFormat.c_str(), &made->kvCache), model_);
        library_->check(library_->variatorCudaKvBlockBytes(made->kvCache, &made->blockBytes), made->kvCache);
        made->blockCount = blockCount;
        made->blockSize = blockSize;
      },
      std::move(settled));
}

void CudaEngine::convert(std::shared_ptr<CudaKvCache> kvCache, const std::string& kvFormat, std::vector<int32_t> blockIds,
                         std::shared_ptr<double> convertMs, Settled settled) {
  give(
      [this, kvCache = std::move(kvCache), kvFormat, blockIds = std::move(blockIds), convertMs = std::move(convertMs)] {
        const auto count = static_cast<int32_t>(blockIds.size());
        library_->check(
            library_->variatorCudaConvertKvCache(kvCache->kvCache, kvFormat.c_str(), blockIds.data(), count, convertMs.get()),
            kvCache->kvCache);
        int32_t blockCount = 0;
        library_->check(library_->variatorCudaKvBlockCount(kvCache->kvCache, kvFormat.c_str(), &blockCount), nullptr);
        kvCache->blockCount = blockCount;
      },
      std::move(settled));
}

void CudaEngine::prepare(std::shared_ptr<CudaKvCache> kvCache, const VariatorCudaPath& path, std::shared_ptr<double> prepareMs,
                         Settled settled) {
  give(
      [this, kvCache = std::move(kvCache), path, prepareMs = std::move(prepareMs)] {
        library_->check(library_->variatorCudaPrepare(model_, kvCache->kvCache, &path, prepareMs.get()), model_);
      },
      std::move(settled));
}

void CudaEngine::run(std::shared_ptr<CudaStep> cudaStep, std::shared_ptr<CudaKvCache> kvCache, Settled settled) {
  give(
      [this, cudaStep = std::move(cudaStep), kvCache = std::move(kvCache)] {
        Step& step = *cudaStep->step;
        VariatorCudaResult& result = cudaStep->result;
        size_t rowCount = step.contextLengths.size();
        for (const int32_t count : step.draftCounts) rowCount += static_cast<size_t>(count);
        step.sampledTokenIds.assign(rowCount, -1);
        result.sampledTokenIds = step.sampledTokenIds.data();
        if (step.isLogitsWanted) {
          step.logits.assign(step.contextLengths.size() * static_cast<size_t>(vocabularySize()), 0);
          result.logits = step.logits.data();
        }
        if (step.scoring) {
          int64_t count = 0;
          library_->check(library_->variatorCudaLogprobCount(&cudaStep->input, &count), nullptr);
          step.logprobTokenIds.assign(static_cast<size_t>(count), -1);
          step.logprobs.assign(static_cast<size_t>(count), 0);
          result.logprobTokenIds = step.logprobTokenIds.data();
          result.logprobs = step.logprobs.data();
        }
        library_->check(
            library_->variatorCudaRunStep(model_, kvCache->kvCache, &cudaStep->path, &cudaStep->input, &result), model_);
        step.deviceMs = result.deviceMs;
      },
      std::move(settled));
}

void CudaEngine::closeKvCache(VariatorCudaKvCache* kvCache) {
  if (isStopped_) library_->variatorCudaCloseKvCache(kvCache);
  else thread_.give([this, kvCache] { library_->variatorCudaCloseKvCache(kvCache); });
}

CudaKvCache::~CudaKvCache() {
  if (kvCache != nullptr) engine_->closeKvCache(kvCache);
}

}  // namespace variator
