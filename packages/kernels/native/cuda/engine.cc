// See engine.h.
#include "engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <string>

#include "../logit_rules.h"
#include "../logprobs.h"
#include "../native_fault.h"
#include "decode_wgmma.h"
#include "prefill_wgmma.h"
#include "rms_norm.h"
#include "sample.h"

namespace variator::cuda {
namespace {

double msSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

constexpr int32_t mostSplitWorkers = 32;

KvFormat formatOf(const VariatorCudaPath& path) { return static_cast<KvFormat>(path.kvFormat); }

// The wgmma attention that takes this model's chunks on this path, or null.
const PrefillVariant* prefillOf(const VariatorCudaPath& path, const DeviceModel& model) {
  if (!usesWgmma(path) || path.kvFormat != VARIATOR_CUDA_KV_BF16 || model.group() > 128) return nullptr;
  for (const PrefillVariant& variant : prefillVariants()) {
    if (variant.headSize == model.headSize) return &variant;
  }
  return nullptr;
}

// The wgmma attention that takes this model's decoding rows on this path, or null where the path wants none.
const DecodeVariant* decodeOf(const VariatorCudaPath& path, const DeviceModel& model) {
  if (path.decode != VARIATOR_CUDA_DECODE_WGMMA) return nullptr;
  for (const DecodeVariant& variant : decodeVariants()) {
    if (variant.headSize == model.headSize && decodePairsPerItem(variant, model.headCount, model.kvHeadCount) > 0) return &variant;
  }
  throw NativeFault("path: decoding by wgmma is for heads of 64 and 128, at most 16 to a KV head");
}

// float32 numbers of a split of a decoding row.
int64_t partialRowOf(const VariatorCudaPath& path, const DeviceModel& model) {
  const DecodeVariant* decode = decodeOf(path, model);
  return decode != nullptr ? model.kvHeadCount * decodePartStride(*decode) : int64_t{model.headCount} * (model.headSize + 2);
}

}  // namespace

void checkPath(const VariatorCudaPath& path) {
  checkLinearPath(path);
  const auto require = [](bool isMet, const char* fault) {
    if (!isMet) throw NativeFault(std::string("path: ") + fault);
  };
  require(path.kvFormat == VARIATOR_CUDA_KV_BF16 || path.kvFormat == VARIATOR_CUDA_KV_FP8, "there is no such kvFormat");
  require(path.decode == VARIATOR_CUDA_DECODE_MMA || path.decode == VARIATOR_CUDA_DECODE_WGMMA, "there is no such decode");
  require(path.decode == VARIATOR_CUDA_DECODE_MMA || path.kvFormat == VARIATOR_CUDA_KV_BF16, "decoding by wgmma reads keys and values in bf16");
  require(path.splitTokens == 64 || path.splitTokens == 128 || path.splitTokens == 256 || path.splitTokens == 512, "splitTokens must be 64, 128, 256 or 512");
}

Engine::Engine(const VariatorCudaModelSource& source, const VariatorCudaLimits& limits)
    : limits_(limits) {
  const auto require = [](bool isMet, const char* fault) {
    if (!isMet) throw NativeFault(std::string("limits: ") + fault);
  };
  require(limits.mostTokens >= 1 && limits.mostTokens <= 65536, "mostTokens must be from 1 to 65536");
  require(limits.mostSequences >= 1 && limits.mostSequences <= limits.mostTokens, "mostSequences must be from 1 to mostTokens");
  require(limits.mostHeadRows >= limits.mostSequences, "mostHeadRows must be mostSequences or more");
  require(limits.mostBlocksPerSequence >= 1, "mostBlocksPerSequence must be 1 or more");
  model_ = openDeviceModel(source, stream_);
  linear_ = std::make_unique<LinearLayers>(model_, std::max(limits.mostTokens, limits.mostHeadRows));
  layout_ = layoutOf(model_, limits_);
  multiprocessorCount_ = deviceInfo().multiprocessorCount;

  const int64_t rows = limits.mostTokens, half = model_.headSize / 2;
  deviceWords_ = DeviceArray<int32_t>(layout_.words);
  drawn_ = DeviceArray<int32_t>(limits.mostHeadRows);
  residual_ = DeviceArray<float>(rows * model_.hiddenSize);
  cosines_ = DeviceArray<float>(rows * half);
  sines_ = DeviceArray<float>(rows * half);
  logits_ = DeviceArray<float>(int64_t{limits.mostHeadRows} * model_.vocabularySize);
  normed_ = DeviceArray<Bf16>(rows * model_.hiddenSize);
  qkv_ = DeviceArray<Bf16>(rows * model_.qkvSize());
  attended_ = DeviceArray<Bf16>(rows * model_.headCount * model_.headSize);
  gateUp_ = DeviceArray<Bf16>(rows * 2 * model_.intermediateSize);
  gated_ = DeviceArray<Bf16>(rows * model_.intermediateSize);
  headNormed_ = DeviceArray<Bf16>(int64_t{limits.mostHeadRows} * model_.hiddenSize);
  hostWords_ = hostArray<int32_t>(layout_.words);
  hostDrawn_ = hostArray<int32_t>(limits.mostHeadRows);
  hostLogits_ = hostArray<float>(int64_t{limits.mostHeadRows} * model_.vocabularySize);
  scratch_.ruled.resize(static_cast<size_t>(model_.vocabularySize));
  scratch_.weights.resize(static_cast<size_t>(model_.vocabularySize));
  scratch_.candidates.resize(static_cast<size_t>(model_.vocabularySize));
}

Engine::~Engine() {
  for (auto& [key, prepared] : prepared_) {
    for (auto& [bucket, graph] : prepared.graphs) destroyGraph(graph);
  }
}

Engine::Key Engine::keyOf(const KvCache& kvCache, const VariatorCudaPath& path) {
  return {&kvCache, path.linear, path.weights, path.kvFormat, path.splitTokens, path.mmaTile, path.gemvRowsPerWarp, path.gemvLoads, path.usesGraphs, path.decode};
}

void Engine::multiply(const Work& work, MatrixRole role, int32_t layer, const Bf16* x, void* out, Take take, int32_t rowCount) {
  launchCount_ += linear_->multiply(*work.path, role, layer, x, out, take, rowCount, stream_);
}

void Engine::attendRows(const Work& work, int32_t layer) {
  AttentionArguments a{};
  a.queries = qkv_.data();
  a.queryStride = model_.qkvSize();
  a.kv = work.kvCache->layer(layer, formatOf(*work.path));
  a.blockTables = words(layout_.blockTables);
  a.blockTableStride = limits_.mostBlocksPerSequence;
  a.tokenStarts = words(layout_.tokenStarts);
  a.contextLengths = words(layout_.contextLengths);
  a.out = attended_.data();
  a.headCount = model_.headCount;
  a.kvHeadCount = model_.kvHeadCount;
  a.headSize = model_.headSize;
  a.windowTokens = model_.windowTokens[layer];
  a.splitTokens = work.path->splitTokens;
  a.scale = 1.0f / std::sqrt(static_cast<float>(model_.headSize));
  a.partials = work.partials;
  a.partialStarts = words(layout_.partialStarts);
  if (work.decodeItemCount > 0) {
    // As many blocks as fill the device twice, whatever the contexts are: those without a split end at once.
    const int64_t wanted = ceilDivide(2 * int64_t{multiprocessorCount_}, int64_t{work.decodeItemCount} * model_.kvHeadCount);
    a.splitWorkers = wanted <= 1 ? 0 : static_cast<int32_t>(std::min<int64_t>(wanted, mostSplitWorkers));
    a.itemSequences = words(layout_.decodeSequences);
    a.itemFirstPairs = words(layout_.decodePairs);
    a.itemCount = work.decodeItemCount;
    const DecodeVariant* decode = decodeOf(*work.path, model_);
    if (decode != nullptr) {
      a.splitWorkers = std::max(1, a.splitWorkers);
      launchCount_++;
      decodeByWgmma(*decode, a, decodeArrivals_.data(), limits_.mostBlocksPerSequence * kvBlockTokens, work.rowCount, work.kvCache->blockCountIn(KvFormat::Bf16), stream_);
    } else {
      launchCount_ += a.splitWorkers > 0 ? 2 : 1;
      attend(a, 1, stream_);
    }
  }
  if (work.chunkItemCount > 0) {
    a.splitWorkers = 0;
    a.itemSequences = words(layout_.chunkSequences);
    a.itemFirstPairs = words(layout_.chunkPairs);
    a.itemCount = work.chunkItemCount;
    launchCount_++;
    const PrefillVariant* prefill = prefillOf(*work.path, model_);
    if (prefill != nullptr) prefillByWgmma(*prefill, a, work.rowCount, work.kvCache->blockCount(), stream_);
    else attend(a, work.chunkRowTiles, stream_);
  }
}

void Engine::forward(const Work& work) {
  const DeviceModel& m = model_;
  const int32_t rows = work.rowCount;
  launchCount_ = 0;
  embed({m.embedding.data(), words(layout_.tokenIds), residual_.data(), rows, m.hiddenSize}, stream_);
  rotaryAngles({words(layout_.positions), m.frequencies.data(), cosines_.data(), sines_.data(), rows, m.headSize / 2, m.ropeAttentionFactor}, stream_);
  launchCount_ += 2;
  for (int32_t i = 0; i < m.layerCount; i++) {
    const DeviceLayer& layer = m.layers[i];
    rmsNorm({residual_.data(), nullptr, layer.inputNorm.data(), nullptr, normed_.data(), rows, m.hiddenSize, m.rmsNormEpsilon}, stream_);
    multiply(work, MatrixRole::Qkv, i, normed_.data(), qkv_.data(), Take::AsBf16, rows);
    rotateAndAppend({qkv_.data(), layer.qkvBias.data(), layer.qNorm.data(), layer.kNorm.data(), cosines_.data(), sines_.data(), words(layout_.slots),
                     work.kvCache->layer(i, formatOf(*work.path)), rows, m.headCount, m.kvHeadCount, m.headSize, m.isRopeInterleaved ? 1 : 0, m.rmsNormEpsilon},
                    stream_);
    attendRows(work, i);
    multiply(work, MatrixRole::O, i, attended_.data(), residual_.data(), Take::AddToResidual, rows);
    rmsNorm({residual_.data(), nullptr, layer.postAttentionNorm.data(), nullptr, normed_.data(), rows, m.hiddenSize, m.rmsNormEpsilon}, stream_);
    multiply(work, MatrixRole::GateUp, i, normed_.data(), gateUp_.data(), Take::AsBf16, rows);
    swiGlu({gateUp_.data(), gated_.data(), rows, m.intermediateSize}, stream_);
    multiply(work, MatrixRole::Down, i, gated_.data(), residual_.data(), Take::AddToResidual, rows);
    launchCount_ += 4;
  }
  if (work.headRowCount == 0) return;
  rmsNorm({residual_.data(), nullptr, m.finalNorm.data(), words(layout_.headRows), headNormed_.data(), work.headRowCount, m.hiddenSize, m.rmsNormEpsilon}, stream_);
  multiply(work, MatrixRole::Head, 0, headNormed_.data(), logits_.data(), Take::AsFloat, work.headRowCount);
  const auto floats = [&](int64_t offset) { return reinterpret_cast<const float*>(words(offset)); };
  sample({logits_.data(), floats(layout_.temperatures), floats(layout_.topPs), floats(layout_.minPs), words(layout_.topKs),
          reinterpret_cast<const uint32_t*>(words(layout_.seeds)), words(layout_.drawPositions), drawn_.data(), work.headRowCount, m.vocabularySize},
         stream_);
  launchCount_ += 2;
}

void Engine::prepare(const KvCache& kvCache, const VariatorCudaPath& path) {
  checkPath(path);
  const Key key = keyOf(kvCache, path);
  if (prepared_.count(key) > 0) return;
  const int64_t partialRow = partialRowOf(path, model_);
  linear_->prepare(path, stream_);
  if (path.decode == VARIATOR_CUDA_DECODE_WGMMA && decodeArrivals_.count() == 0) {
    DeviceArray<uint32_t> arrivals(int64_t{limits_.mostSequences} * model_.kvHeadCount);
    fill(arrivals.data(), 0, arrivals.bytes(), stream_);
    decodeArrivals_ = std::move(arrivals);
  }
  Prepared prepared;
  // All decoding sequences together have at most as many splits as the cache has room for, and one more each.
  const int64_t splits = ceilDivide(int64_t{kvCache.blockCountIn(formatOf(path))} * kvBlockTokens, path.splitTokens) + limits_.mostSequences;
  // A prefix may stand in many sequences: never less than that many whole contexts.
  const int64_t whole = ceilDivide(int64_t{limits_.mostBlocksPerSequence} * kvBlockTokens, path.splitTokens) + 1;
  prepared.partials = DeviceArray<float>(std::max(splits, std::min<int64_t>(whole * limits_.mostSequences, 4 * splits)) * partialRow);
  const int32_t pairTiles = static_cast<int32_t>(ceilDivide(model_.group(), 16));
  for (const int32_t bucket : decodeBuckets) {
    if (path.usesGraphs == 0 || bucket > limits_.mostSequences) continue;
    beginCapture(stream_);
    try {
      forward({&kvCache, &path, prepared.partials.data(), bucket, bucket * pairTiles, 0, 1, bucket});
    } catch (...) {
      destroyGraph(endCapture(stream_));
      throw;
    }
    prepared.graphs[bucket] = endCapture(stream_);
    prepared.launchCounts[bucket] = launchCount_;
  }
  prepared_[key] = std::move(prepared);
}

void Engine::convert(KvCache& kvCache, KvFormat format, const std::vector<int32_t>& blockIds) { kvCache.convert(format, blockIds, stream_); }

void Engine::forget(const KvCache& kvCache) {
  for (auto one = prepared_.begin(); one != prepared_.end();) {
    if (std::get<0>(one->first) != &kvCache) {
      ++one;
      continue;
    }
    for (auto& [bucket, graph] : one->second.graphs) destroyGraph(graph);
    one = prepared_.erase(one);
  }
}

void Engine::upload(int32_t sequenceCount) {
  copyToDevice(deviceWords_.data(), hostWords_.get(), layout_.blockTables * 4, stream_);
  copyToDevice(words(layout_.blockTables), hostWords_.get() + layout_.blockTables, int64_t{sequenceCount} * limits_.mostBlocksPerSequence * 4, stream_);
}

void Engine::run(const KvCache& kvCache, const VariatorCudaPath& path, const VariatorCudaStep& step, VariatorCudaResult& result) {
  const auto start = std::chrono::steady_clock::now();
  checkPath(path);
  const auto found = prepared_.find(keyOf(kvCache, path));
  if (found == prepared_.end()) throw NativeFault("path: it is not prepared on this cache");
  Prepared& prepared = found->second;
  if (kvCache.format() != formatOf(path)) {
    throw NativeFault(std::string("kvCache: is in ") + nameOf(kvCache.format()) + ", and the path reads " + nameOf(formatOf(path)));
  }
  checkStep(step, model_, limits_, kvCache.blockCount());

  const int32_t bucket = path.usesGraphs != 0 && isDecodeOnly(step) ? bucketOf(step.sequenceCount, limits_.mostSequences) : 0;
  const int32_t chunkItemPairs = prefillOf(path, model_) == nullptr ? 0 : prefillPairsPerItem(model_.headCount, model_.kvHeadCount);
  const StepPlan plan = planStep(step, model_, limits_, layout_, path.splitTokens, bucket, chunkItemPairs, hostWords_.get());
  const int64_t partialRow = partialRowOf(path, model_);
  if (plan.splitCount * partialRow > prepared.partials.count()) {
    throw NativeFault("step: its decoding sequences have " + std::to_string(plan.splitCount) + " splits of context, more than were prepared for");
  }
  const auto headRowCount = static_cast<int32_t>(plan.headRows.size());
  record(before_, stream_);
  upload(step.sequenceCount);
  if (bucket > 0) {
    replay(prepared.graphs.at(bucket), stream_);
    result.launchCount = prepared.launchCounts.at(bucket);
  } else {
    forward({&kvCache, &path, prepared.partials.data(), step.tokenCount, plan.decodeItemCount, plan.chunkItemCount, plan.chunkRowTiles, headRowCount});
    result.launchCount = launchCount_;
  }
  if (headRowCount > 0) copyToHost(hostDrawn_.get(), drawn_.data(), int64_t{headRowCount} * 4, stream_);
  record(after_, stream_);
  wait(stream_);
  result.isGraph = bucket > 0 ? 1 : 0;
  result.paddedCount = bucket > 0 ? bucket : step.sequenceCount;
  result.deviceMs = elapsedMs(before_, after_);
  finishOnHost(step, plan, result);
  result.hostMs = msSince(start);
}

void Engine::finishOnHost(const VariatorCudaStep& step, const StepPlan& plan, VariatorCudaResult& result) {
  std::fill(result.sampledTokenIds, result.sampledTokenIds + plan.sampledCount, -1);
  LogitRules rules;
  const bool hasRules = step.repetitionPenalties != nullptr;
  const int32_t n = step.sequenceCount;
  if (hasRules) {
    rules = {{step.repetitionPenalties, step.repetitionPenalties + n}, {step.frequencyPenalties, step.frequencyPenalties + n},
             {step.presencePenalties, step.presencePenalties + n},     {step.countStarts, step.countStarts + n + 1},
             {step.countedTokenIds, step.countedTokenIds + step.countStarts[n]}, {step.tokenCounts, step.tokenCounts + step.countStarts[n]},
             {step.biasStarts, step.biasStarts + n + 1},               {step.biasTokenIds, step.biasTokenIds + step.biasStarts[n]},
             {step.biases, step.biases + step.biasStarts[n]}};
  }
  const int64_t vocabularySize = model_.vocabularySize;
  const auto changesLogits = [&](const HeadRow& head) { return hasRules && head.sampledAt >= 0 && rules.changesLogits(head.sequence); };
  bool isBroken = false, isAnyRead = false;
  for (size_t i = 0; i < plan.headRows.size(); i++) {
    const HeadRow& head = plan.headRows[i];
    const bool isWanted = changesLogits(head) || head.logprobsAt >= 0 || (step.isLogitsWanted != 0 && head.isLast);
    if (!isWanted) continue;
    copyToHost(hostLogits_.get() + i * vocabularySize, logits_.data() + i * vocabularySize, vocabularySize * 4, stream_);
    isAnyRead = true;
  }
  if (isAnyRead) wait(stream_);
  for (size_t i = 0; i < plan.headRows.size(); i++) {
    const HeadRow& head = plan.headRows[i];
    const float* logits = hostLogits_.get() + i * vocabularySize;
    if (step.isLogitsWanted != 0 && head.isLast) std::copy(logits, logits + vocabularySize, result.logits + head.sequence * vocabularySize);
    int32_t token = head.scoredTokenId;
    if (head.sampledAt >= 0) {
      token = hostDrawn_[i];
      if (changesLogits(head)) {
        std::copy(logits, logits + vocabularySize, scratch_.ruled.begin());
        const int32_t s = head.sequence;
        Sampling sampling{step.temperatures[s], step.topPs[s], step.topKs[s], step.minPs[s], false,
                          static_cast<uint64_t>(step.seeds[2 * s]) | static_cast<uint64_t>(step.seeds[2 * s + 1]) << 32};
        sampling.hasBans = applyRules(rules, s, scratch_.ruled.data());
        const int64_t position = int64_t{step.contextLengths[s]} + head.row - step.tokenStarts[s] + 1;
        token = sampleToken(scratch_.ruled.data(), vocabularySize, sampling, position, scratch_);
      }
      isBroken = isBroken || token < 0;
      result.sampledTokenIds[head.sampledAt] = token;
    }
    if (head.logprobsAt >= 0 && token >= 0) {
      isBroken = isBroken || !scoreRow(logits, vocabularySize, token, step.topCounts[head.sequence], scratch_.weights,
                                       result.logprobTokenIds + head.logprobsAt, result.logprobs + head.logprobsAt);
    }
  }
  if (isBroken) throw NativeFault("the logits are not finite numbers: the model's weights are damaged");
}

}  // namespace variator::cuda
