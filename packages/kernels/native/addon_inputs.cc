// See addon_inputs.h. Field names are those of model-shape.ts and native.ts, in their order.
#include "addon_inputs.h"

#include "engine.h"
#include "napi_values.h"

namespace variator {
namespace {

constexpr int64_t sizeAtMost = int64_t{1} << 24;
constexpr int64_t offsetAtMost = int64_t{1} << 52;

ExpertShape readExpertShape(napi_env env, napi_value object) {
  ExpertShape experts;
  experts.expertCount = integerOf(env, object, "expertCount", 1, 4096);
  experts.expertsPerToken = integerOf(env, object, "expertsPerToken", 1, 4096);
  experts.intermediateSize = integerOf(env, object, "intermediateSize", 1, sizeAtMost);
  experts.sharedIntermediateSize = integerOf(env, object, "sharedIntermediateSize", 0, sizeAtMost);
  const std::string scoring = readString(env, propertyOf(env, object, "scoring"), "scoring");
  if (scoring != "softmax" && scoring != "sigmoid") throw NativeFault("scoring: " + scoring + " is neither softmax nor sigmoid");
  experts.isSigmoid = scoring == "sigmoid";
  experts.groupCount = integerOf(env, object, "groupCount", 1, 4096);
  experts.groupsPerToken = integerOf(env, object, "groupsPerToken", 1, 4096);
  experts.isNormalised = readBoolean(env, propertyOf(env, object, "isNormalised"), "isNormalised");
  experts.scale = static_cast<float>(readNumber(env, propertyOf(env, object, "scale"), "scale"));
  return experts;
}

LatentShape readLatentShape(napi_env env, napi_value object) {
  LatentShape latent;
  latent.queryRank = integerOf(env, object, "queryRank", 0, sizeAtMost);
  latent.keyValueRank = integerOf(env, object, "keyValueRank", 1, sizeAtMost);
  latent.ropeSize = integerOf(env, object, "ropeSize", 2, 4096);
  latent.valueHeadSize = integerOf(env, object, "valueHeadSize", 1, 4096);
  latent.scoreFactor = static_cast<float>(readNumber(env, propertyOf(env, object, "scoreFactor"), "scoreFactor"));
  latent.isAbsorbed = readBoolean(env, propertyOf(env, object, "isAbsorbed"), "isAbsorbed");
  return latent;
}

TensorSource readSource(napi_env env, napi_value object, const std::string& name) {
  return {name,
          readString(env, propertyOf(env, object, "file"), "file"),
          integerOf(env, object, "offset", 0, offsetAtMost),
          integerOf(env, object, "byteLength", 1, offsetAtMost),
          readString(env, propertyOf(env, object, "dtype"), "dtype"),
          integerOf(env, object, "rows", 1, offsetAtMost),
          integerOf(env, object, "columns", 1, offsetAtMost)};
}

LogitRules readRules(napi_env env, napi_value object) {
  const auto integers = [&](const char* name) { return readTypedArray<int32_t>(env, propertyOf(env, object, name), name); };
  const auto floats = [&](const char* name) { return readTypedArray<float>(env, propertyOf(env, object, name), name); };
  LogitRules rules;
  rules.repetitionPenalties = floats("repetitionPenalties");
  rules.frequencyPenalties = floats("frequencyPenalties");
  rules.presencePenalties = floats("presencePenalties");
  rules.countStarts = integers("countStarts");
  rules.countedTokenIds = integers("countedTokenIds");
  rules.tokenCounts = integers("tokenCounts");
  rules.biasStarts = integers("biasStarts");
  rules.biasTokenIds = integers("biasTokenIds");
  rules.biases = floats("biases");
  return rules;
}

Scoring readScoring(napi_env env, napi_value object) {
  const auto integers = [&](const char* name) { return readTypedArray<int32_t>(env, propertyOf(env, object, name), name); };
  return {integers("topCounts"), integers("scoredTokenIds")};
}

}  // namespace

HandleScope::HandleScope(napi_env env) : env_(env) { checkStatus(napi_open_handle_scope(env, &scope_), "a handle scope"); }
HandleScope::~HandleScope() { napi_close_handle_scope(env_, scope_); }

ModelShape readShape(napi_env env, napi_value object) {
  ModelShape shape{};
  shape.layerCount = integerOf(env, object, "layerCount", 1, 4096);
  shape.hiddenSize = integerOf(env, object, "hiddenSize", 1, sizeAtMost);
  shape.intermediateSize = integerOf(env, object, "intermediateSize", 1, sizeAtMost);
  shape.headCount = integerOf(env, object, "headCount", 1, 4096);
  shape.kvHeadCount = integerOf(env, object, "kvHeadCount", 1, 4096);
  shape.headSize = integerOf(env, object, "headSize", 2, 4096);
  shape.vocabularySize = integerOf(env, object, "vocabularySize", 1, sizeAtMost);
  shape.maxPositionCount = integerOf(env, object, "maxPositionCount", 1, int64_t{1} << 30);
  shape.rmsNormEpsilon = static_cast<float>(readNumber(env, propertyOf(env, object, "rmsNormEpsilon"), "rmsNormEpsilon"));
  shape.ropeInverseFrequencies =
      readTypedArray<float>(env, propertyOf(env, object, "ropeInverseFrequencies"), "ropeInverseFrequencies");
  shape.ropeAttentionFactor =
      static_cast<float>(readNumber(env, propertyOf(env, object, "ropeAttentionFactor"), "ropeAttentionFactor"));
  shape.windowTokens = readTypedArray<int32_t>(env, propertyOf(env, object, "windowTokens"), "windowTokens");
  shape.isRopeInterleaved = readBoolean(env, propertyOf(env, object, "isRopeInterleaved"), "isRopeInterleaved");
  const napi_value experts = propertyOf(env, object, "experts");
  if (!isNull(env, experts)) shape.experts = readExpertShape(env, experts);
  const napi_value latent = propertyOf(env, object, "latent");
  if (!isNull(env, latent)) shape.latent = readLatentShape(env, latent);
  checkShape(shape);
  return shape;
}

uint32_t lengthOf(napi_env env, napi_value list, const char* name) {
  uint32_t length = 0;
  if (napi_get_array_length(env, list, &length) != napi_ok) throw NativeFault(std::string(name) + ": is not a list");
  return length;
}

napi_value elementOf(napi_env env, napi_value list, uint32_t index, const char* name) {
  napi_value element;
  checkStatus(napi_get_element(env, list, index, &element), name);
  return element;
}

TensorSource readSource(napi_env env, napi_value parent, const char* name) {
  return readSource(env, propertyOf(env, parent, name), std::string(name));
}

Tensor readTensor(napi_env env, napi_value source, Model& model) {
  const TensorSource read = readSource(env, source, std::string("tensor"));
  return mapTensor(model, read, read.rows, read.columns);
}

std::unique_ptr<Model> readModel(napi_env env, napi_value shapeObject, napi_value tensors) {
  auto model = std::make_unique<Model>();
  model->shape = readShape(env, shapeObject);
  const ModelShape& shape = model->shape;
  const auto matrix = [&](napi_value parent, const char* name, int64_t rows, int64_t columns) {
    return mapTensor(*model, readSource(env, parent, name), rows, columns);
  };
  const auto vector = [&](napi_value parent, const char* name, int64_t size) {
    return readVector(*model, readSource(env, parent, name), size);
  };
  const auto optionalVector = [&](napi_value parent, const char* name, int64_t size) {
    if (isNull(env, propertyOf(env, parent, name))) return std::vector<float>{};
    return vector(parent, name, size);
  };

  model->embedding = matrix(tensors, "embedding", shape.vocabularySize, shape.hiddenSize);
  const napi_value layers = propertyOf(env, tensors, "layers");
  const uint32_t layerCount = lengthOf(env, layers, "layers");
  if (layerCount != shape.layerCount) {
    throw NativeFault("layers: must be " + std::to_string(shape.layerCount) + " of them");
  }
  for (uint32_t index = 0; index < layerCount; index++) {
    const HandleScope scope(env);
    const napi_value layer = elementOf(env, layers, index, "layers");
    LayerVectors vectors;
    LayerMatrices<Tensor> matrices;
    vectors.inputNorm = vector(layer, "inputNorm", shape.hiddenSize);
    const int64_t queryRank = shape.latent.queryRank;
    matrices.q = matrix(layer, "q", shape.querySize(), queryRank > 0 ? queryRank : shape.hiddenSize);
    matrices.o = matrix(layer, "o", shape.hiddenSize, shape.attendedSize());
    if (shape.hasLatents()) {
      const napi_value latent = propertyOf(env, layer, "latent");
      const int64_t rank = shape.latent.keyValueRank;
      if (queryRank > 0) {
        matrices.queryDown = matrix(latent, "queryDown", queryRank, shape.hiddenSize);
        vectors.queryNorm = vector(latent, "queryNorm", queryRank);
      }
      matrices.keyValueDown = matrix(latent, "keyValueDown", rank + shape.latent.ropeSize, shape.hiddenSize);
      vectors.keyValueNorm = vector(latent, "keyValueNorm", rank);
      matrices.keyValueUp = matrix(latent, "keyValueUp", shape.headCount * shape.upHeadSize(), rank);
      if (shape.latent.isAbsorbed) absorbKeyValueUp(*model, matrices);
    } else {
      matrices.k = matrix(layer, "k", shape.keySize(), shape.hiddenSize);
      matrices.v = matrix(layer, "v", shape.keySize(), shape.hiddenSize);
    }
    vectors.qBias = optionalVector(layer, "qBias", shape.querySize());
    vectors.kBias = optionalVector(layer, "kBias", shape.keySize());
    vectors.vBias = optionalVector(layer, "vBias", shape.keySize());
    vectors.qNorm = optionalVector(layer, "qNorm", shape.headSize);
    vectors.kNorm = optionalVector(layer, "kNorm", shape.headSize);
    vectors.postAttentionNorm = vector(layer, "postAttentionNorm", shape.hiddenSize);
    const auto mlp = [&](napi_value parent, auto& own, int64_t size) {
      own.gate = matrix(parent, "gate", size, shape.hiddenSize);
      own.up = matrix(parent, "up", size, shape.hiddenSize);
      own.down = matrix(parent, "down", shape.hiddenSize, size);
    };
    const bool isSparse = !isNull(env, propertyOf(env, layer, "router"));
    const napi_value experts = propertyOf(env, layer, "experts");
    const uint32_t expertCount = lengthOf(env, experts, "experts");
    if (expertCount != (isSparse ? shape.experts.expertCount : 0)) {
      throw NativeFault("experts: must be as many as expertCount in a layer with a router, and none in another");
    }
    const int64_t mlpSize = isSparse ? shape.experts.sharedIntermediateSize : shape.intermediateSize;
    if (mlpSize > 0) mlp(layer, matrices, mlpSize);
    else if (!isNull(env, propertyOf(env, layer, "gate"))) throw NativeFault("gate: has no place in this layer");
    if (isSparse) matrices.router = matrix(layer, "router", shape.experts.expertCount, shape.hiddenSize);
    vectors.routerBias = optionalVector(layer, "routerBias", shape.experts.expertCount);
    for (uint32_t expert = 0; expert < expertCount; expert++) {
      const HandleScope expertScope(env);
      MlpMatrices<Tensor> own;
      mlp(elementOf(env, experts, expert, "experts"), own, shape.experts.intermediateSize);
      matrices.experts.push_back(own);
    }
    model->vectors.push_back(std::move(vectors));
    model->matrices.push_back(std::move(matrices));
  }
  model->finalNorm = vector(tensors, "finalNorm", shape.hiddenSize);
  model->head = matrix(tensors, "head", shape.vocabularySize, shape.hiddenSize);
  listLinearShapes(*model);
  return model;
}

std::shared_ptr<Step> readStep(napi_env env, napi_value input) {
  const auto field = [&](const char* name) { return propertyOf(env, input, name); };
  const auto step = readBatch(env, input);
  step->linear = parseLinear(readString(env, field("linear"), "linear"));
  if (!isNull(env, field("tunings"))) {
    step->dispatch.tunings = readTunings(readTypedArray<int32_t>(env, field("tunings"), "tunings"), "tunings");
  }
  step->attention = parseAttention(readString(env, field("attention"), "attention"));
  if (!isNull(env, field("attentionTunings"))) {
    step->attentionDispatch.tunings =
        readAttentionTunings(readTypedArray<int32_t>(env, field("attentionTunings"), "attentionTunings"), "attentionTunings");
  }
  step->splitTokens = integerOf(env, input, "splitTokens", leastSplitTokens, mostSplitTokens);
  step->threadCount = static_cast<int>(integerOf(env, input, "threadCount", 1, ThreadTeam::maxThreadCount));
  return step;
}

std::shared_ptr<Step> readBatch(napi_env env, napi_value input) {
  const auto field = [&](const char* name) { return propertyOf(env, input, name); };
  auto step = std::make_shared<Step>();
  step->tokenIds = readTypedArray<int32_t>(env, field("tokenIds"), "tokenIds");
  step->tokenStarts = readTypedArray<int32_t>(env, field("tokenStarts"), "tokenStarts");
  step->contextLengths = readTypedArray<int32_t>(env, field("contextLengths"), "contextLengths");
  step->blockTables = readTypedArray<int32_t>(env, field("blockTables"), "blockTables");
  step->blockTableStride = integerOf(env, input, "blockTableStride", 1, sizeAtMost);
  step->isSampled = readTypedArray<uint8_t>(env, field("isSampled"), "isSampled");
  step->draftCounts = readTypedArray<int32_t>(env, field("draftCounts"), "draftCounts");
  const auto temperatures = readTypedArray<float>(env, field("temperatures"), "temperatures");
  const auto topPs = readTypedArray<float>(env, field("topPs"), "topPs");
  const auto topKs = readTypedArray<int32_t>(env, field("topKs"), "topKs");
  const auto minPs = readTypedArray<float>(env, field("minPs"), "minPs");
  const auto seeds = readTypedArray<uint32_t>(env, field("seeds"), "seeds");
  const size_t count = step->contextLengths.size();
  if (temperatures.size() != count || topPs.size() != count || topKs.size() != count || minPs.size() != count ||
      seeds.size() != 2 * count) {
    throw NativeFault("temperatures, topPs, topKs, minPs, seeds: must have an entry (seeds two) for each sequence");
  }
  if (!isNull(env, field("rules"))) step->rules = readRules(env, field("rules"));
  if (!isNull(env, field("scoring"))) step->scoring = readScoring(env, field("scoring"));
  for (size_t s = 0; s < count; s++) {
    const uint64_t seed = static_cast<uint64_t>(seeds[2 * s + 1]) << 32 | seeds[2 * s];
    step->samplings.push_back({temperatures[s], topPs[s], topKs[s], minPs[s], false, seed});
  }
  step->isLogitsWanted = readBoolean(env, field("isLogitsWanted"), "isLogitsWanted");
  return step;
}

AttentionTrial readAttentionTrial(napi_env env, napi_value object) {
  const auto field = [&](const char* name) { return propertyOf(env, object, name); };
  const auto floats = [&](const char* name) { return readTypedArray<float>(env, field(name), name); };
  AttentionTrial trial;
  trial.attention = parseAttention(readString(env, field("attention"), "attention"));
  trial.headCount = integerOf(env, object, "headCount", 1, 4096);
  trial.kvHeadCount = integerOf(env, object, "kvHeadCount", 1, 4096);
  trial.headSize = integerOf(env, object, "headSize", 2, 1024);
  trial.windowTokens = integerOf(env, object, "windowTokens", 0, sizeAtMost);
  trial.blockSize = integerOf(env, object, "blockSize", 1, 4096);
  trial.splitTokens = integerOf(env, object, "splitTokens", leastSplitTokens, mostSplitTokens);
  trial.threadCount = static_cast<int>(integerOf(env, object, "threadCount", 1, ThreadTeam::maxThreadCount));
  trial.tunings = readAttentionTunings(readTypedArray<int32_t>(env, field("tuning"), "tuning"), "tuning");
  if (trial.tunings.size() != 1) throw NativeFault("tuning: must be four integers");
  trial.tokenStarts = readTypedArray<int32_t>(env, field("tokenStarts"), "tokenStarts");
  trial.contextLengths = readTypedArray<int32_t>(env, field("contextLengths"), "contextLengths");
  trial.queries = floats("queries");
  trial.keys = floats("keys");
  trial.values = floats("values");
  return trial;
}

}  // namespace variator
