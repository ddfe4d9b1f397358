// The functions of native-cuda.ts in its order, and nothing else. As addon.cc does, it reads and checks arguments on the
// event loop and hands work to a thread; a fault after which the device is gone leaves as DeviceLostError.
#include "cuda_addon.h"

#include <cmath>
#include <map>

#include "addon_binding.h"
#include "addon_inputs.h"
#include "cuda_engine.h"
#include "engine.h"

namespace variator {
namespace {

const napi_type_tag cudaEngineTag = {0x7661726961746f72ull, 3};
const napi_type_tag cudaKvCacheTag = {0x7661726961746f72ull, 4};

// NVML may take milliseconds: it is asked on a thread of its own.
struct TelemetryThread {
  JobThread thread;
};

// What an environment has opened; the library itself is one for the process.
struct CudaBinding {
  std::shared_ptr<const CudaLibrary> library;
  std::shared_ptr<TelemetryThread> telemetry;
};
std::map<napi_env, CudaBinding>& bindings() {
  static thread_local std::map<napi_env, CudaBinding> all;
  return all;
}
const CudaLibrary& libraryOf(napi_env env) { return *bindings().at(env).library; }

VariatorCudaPath readPath(napi_env env, napi_value object) {
  const auto integer = [&](const char* name, int64_t least, int64_t most) {
    return static_cast<int32_t>(integerOf(env, object, name, least, most));
  };
  VariatorCudaPath path{};
  path.linear = integer("linear", 0, 1 << 16);
  path.weights = integer("weights", 0, 1 << 16);
  path.kvFormat = integer("kvFormat", 0, 1 << 16);
  path.splitTokens = integer("splitTokens", 1, 1 << 20);
  path.mmaTile = integer("mmaTile", 0, libraryOf(env).variatorCudaMmaTileCount());
  path.gemvRowsPerWarp = integer("gemvRowsPerWarp", 1, 4);
  path.gemvLoads = integer("gemvLoads", 1, 8);
  path.usesGraphs = readBoolean(env, propertyOf(env, object, "usesGraphs"), "usesGraphs") ? 1 : 0;
  path.decode = integer("decode", 0, 1 << 16);
  return path;
}

// null where the driver does not say.
napi_value makeKnown(napi_env env, double number) {
  return std::isnan(number) || number < 0 ? makeNull(env) : makeNumber(env, number);
}

napi_value device(napi_env env, napi_callback_info info) {
  return call<1>(env, info, [&](napi_value*) {
    VariatorCudaDevice found{};
    libraryOf(env).check(libraryOf(env).variatorCudaDevice(&found), nullptr);
    const napi_value result = makeObject(env);
    setProperty(env, result, "name", makeString(env, found.name));
    setProperty(env, result, "isEmulated", makeBoolean(env, found.isEmulated != 0));
    setProperty(env, result, "computeCapability", makeNumber(env, found.computeCapability));
    setProperty(env, result, "multiprocessorCount", makeNumber(env, found.multiprocessorCount));
    setProperty(env, result, "memoryBytes", makeNumber(env, static_cast<double>(found.memoryBytes)));
    setProperty(env, result, "freeBytes", makeNumber(env, static_cast<double>(found.freeBytes)));
    setProperty(env, result, "l2Bytes", makeNumber(env, static_cast<double>(found.l2Bytes)));
    setProperty(env, result, "hasGemmLibrary", makeBoolean(env, found.hasGemmLibrary != 0));
    return result;
  });
}

napi_value telemetry(napi_env env, napi_callback_info info) {
  return callForPromise<1>(env, info, [&](napi_value*) {
    const auto told = std::make_shared<VariatorCudaTelemetry>();
    const auto result = [told](napi_env resultEnv) {
      const napi_value object = makeObject(resultEnv);
      const auto set = [&](const char* name, double value) { setProperty(resultEnv, object, name, makeKnown(resultEnv, value)); };
      set("smClockMhz", told->smClockMhz);
      set("memoryClockMhz", told->memoryClockMhz);
      set("powerWatts", told->powerWatts);
      set("energyJoules", told->energyJoules);
      set("temperatureCelsius", told->temperatureCelsius);
      set("memoryUsedBytes", static_cast<double>(told->memoryUsedBytes));
      return object;
    };
    const auto [library, thread] = bindings().at(env);
    return promise(env, {result, [thread = thread] {}, {}}, [&](Settled settled) {
      thread->thread.give([library = library, told, settled = std::move(settled)] {
        const int32_t status = library->variatorCudaTelemetry(told.get());
        settled(status == 0 ? "" : library->variatorCudaLastError(nullptr));
      });
    });
  });
}

napi_value mmaTileCount(napi_env env, napi_callback_info info) {
  return call<1>(env, info, [&](napi_value*) { return makeNumber(env, libraryOf(env).variatorCudaMmaTileCount()); });
}

napi_value openModel(napi_env env, napi_callback_info info) {
  return callForPromise<3>(env, info, [&](napi_value* arguments) {
    auto source = std::make_unique<CudaModelSource>(env, arguments[0], arguments[1]);
    const auto limit = [&](const char* name) { return static_cast<int32_t>(integerOf(env, arguments[2], name, 1, 1 << 24)); };
    const VariatorCudaLimits limits = {limit("mostTokens"), limit("mostSequences"), limit("mostHeadRows"), limit("mostBlocksPerSequence")};
    const auto engine = std::make_shared<CudaEngine>(bindings().at(env).library, std::move(source), limits);
    bindingOf(env).stops.push_back([weak = std::weak_ptr<CudaEngine>(engine)] {
      if (const auto open = weak.lock()) open->stop();
    });
    const auto result = [engine](napi_env resultEnv) {
      const napi_value object = makeObject(resultEnv);
      setProperty(resultEnv, object, "model", makeHandle(resultEnv, engine, cudaEngineTag));
      setProperty(resultEnv, object, "weightBytes", makeNumber(resultEnv, static_cast<double>(engine->weightBytes())));
      return object;
    };
    return promise(env, {result, {}, [engine] { return engine->isDeviceLost(); }},
                   [&](Settled settled) { engine->open(std::move(settled)); });
  });
}

napi_value createKvCache(napi_env env, napi_callback_info info) {
  return callForPromise<4>(env, info, [&](napi_value* arguments) {
    const auto engine = handleOf<CudaEngine>(env, arguments[0], cudaEngineTag, "model");
    const auto blockCount = static_cast<int32_t>(readInteger(env, arguments[1], "blockCount", 1, (int64_t{1} << 31) - 1));
    const auto blockSize = static_cast<int32_t>(readInteger(env, arguments[2], "blockSize", 1, 4096));
    const std::string kvFormat = readString(env, arguments[3], "kvFormat");
    const auto made = std::make_shared<CudaKvCache>(engine);
    const auto result = [made](napi_env resultEnv) {
      const napi_value object = makeObject(resultEnv);
      setProperty(resultEnv, object, "kvCache", makeHandle(resultEnv, made, cudaKvCacheTag));
      setProperty(resultEnv, object, "blockBytes", makeNumber(resultEnv, static_cast<double>(made->blockBytes)));
      return object;
    };
    return promise(env, {result, {}, [engine] { return engine->isDeviceLost(); }}, [&](Settled settled) {
      engine->createKvCache(blockCount, blockSize, kvFormat, made, std::move(settled));
    });
  });
}

std::shared_ptr<CudaKvCache> kvCacheOf(napi_env env, napi_value value, const CudaEngine& engine) {
  const auto kvCache = handleOf<CudaKvCache>(env, value, cudaKvCacheTag, "kvCache");
  if (kvCache->engine() != &engine) throw NativeFault("kvCache: was made for another model");
  return kvCache;
}

napi_value kvBlockCount(napi_env env, napi_callback_info info) {
  return call<2>(env, info, [&](napi_value* arguments) {
    const auto kvCache = handleOf<CudaKvCache>(env, arguments[0], cudaKvCacheTag, "kvCache");
    const std::string kvFormat = readString(env, arguments[1], "kvFormat");
    int32_t blockCount = 0;
    libraryOf(env).check(libraryOf(env).variatorCudaKvBlockCount(kvCache->kvCache, kvFormat.c_str(), &blockCount), nullptr);
    return makeNumber(env, blockCount);
  });
}

napi_value convertKvCache(napi_env env, napi_callback_info info) {
  return callForPromise<4>(env, info, [&](napi_value* arguments) {
    const auto engine = handleOf<CudaEngine>(env, arguments[0], cudaEngineTag, "model");
    const auto kvCache = kvCacheOf(env, arguments[1], *engine);
    if (engine->isStepRunning) throw NativeFault("model: a step is running; one at a time");
    const std::string kvFormat = readString(env, arguments[2], "kvFormat");
    auto blockIds = readTypedArray<int32_t>(env, arguments[3], "blockIds");
    const auto convertMs = std::make_shared<double>(0);
    engine->isStepRunning = true;
    const auto result = [convertMs](napi_env resultEnv) {
      const napi_value object = makeObject(resultEnv);
      setProperty(resultEnv, object, "convertMs", makeNumber(resultEnv, *convertMs));
      return object;
    };
    return promise(env, {result, [engine] { engine->isStepRunning = false; }, [engine] { return engine->isDeviceLost(); }},
                   [&](Settled settled) { engine->convert(kvCache, kvFormat, std::move(blockIds), convertMs, std::move(settled)); });
  });
}

napi_value prepare(napi_env env, napi_callback_info info) {
  return callForPromise<3>(env, info, [&](napi_value* arguments) {
    const auto engine = handleOf<CudaEngine>(env, arguments[0], cudaEngineTag, "model");
    const auto kvCache = kvCacheOf(env, arguments[1], *engine);
    const VariatorCudaPath path = readPath(env, arguments[2]);
    const auto prepareMs = std::make_shared<double>(0);
    const auto result = [prepareMs](napi_env resultEnv) {
      const napi_value object = makeObject(resultEnv);
      setProperty(resultEnv, object, "prepareMs", makeNumber(resultEnv, *prepareMs));
      return object;
    };
    return promise(env, {result, {}, [engine] { return engine->isDeviceLost(); }},
                   [&](Settled settled) { engine->prepare(kvCache, path, prepareMs, std::move(settled)); });
  });
}

napi_value isBatchInvariant(napi_env env, napi_callback_info info) {
  return call<1>(env, info, [&](napi_value* arguments) {
    const VariatorCudaPath path = readPath(env, arguments[0]);
    int32_t isInvariant = 0;
    libraryOf(env).check(libraryOf(env).variatorCudaIsBatchInvariant(&path, &isInvariant), nullptr);
    return makeBoolean(env, isInvariant != 0);
  });
}

// What the library was given memory for.
void checkLimits(const Step& step, const VariatorCudaLimits& limits) {
  const auto atMost = [](int64_t count, int64_t most, const char* what) {
    if (count > most) throw NativeFault(std::string(what) + std::to_string(count) + ", and the model was opened for " + std::to_string(most));
  };
  atMost(step.tokenCount(), limits.mostTokens, "tokenIds: a step of ");
  atMost(step.sequenceCount(), limits.mostSequences, "contextLengths: sequences of a step are ");
  atMost(step.blockTableStride, limits.mostBlocksPerSequence, "blockTableStride: is ");
  int64_t headRowCount = 0;
  for (int64_t s = 0; s < step.sequenceCount(); s++) headRowCount += step.isSampled[s] != 0 ? 1 + step.draftCounts[s] : 0;
  if (step.scoring) {
    for (const int32_t token : step.scoring->scoredTokenIds) headRowCount += token >= 0 ? 1 : 0;
  }
  atMost(headRowCount, limits.mostHeadRows, "isSampled, draftCounts, scoredTokenIds: rows with logits are ");
}

napi_value stepOutput(napi_env env, const CudaStep& cudaStep) {
  const Step& step = *cudaStep.step;
  const VariatorCudaResult& result = cudaStep.result;
  const napi_value output = makeObject(env);
  setProperty(env, output, "sampledTokenIds", makeInt32Array(env, step.sampledTokenIds));
  setProperty(env, output, "logits", step.isLogitsWanted ? makeFloat32Array(env, step.logits) : makeNull(env));
  setProperty(env, output, "logprobTokenIds", step.scoring ? makeInt32Array(env, step.logprobTokenIds) : makeNull(env));
  setProperty(env, output, "logprobs", step.scoring ? makeFloat32Array(env, step.logprobs) : makeNull(env));
  setProperty(env, output, "deviceMs", makeNumber(env, result.deviceMs));
  setProperty(env, output, "hostMs", makeNumber(env, result.hostMs));
  setProperty(env, output, "launchCount", makeNumber(env, result.launchCount));
  setProperty(env, output, "isGraph", makeBoolean(env, result.isGraph != 0));
  setProperty(env, output, "paddedCount", makeNumber(env, result.paddedCount));
  return output;
}

napi_value runStep(napi_env env, napi_callback_info info) {
  return callForPromise<4>(env, info, [&](napi_value* arguments) {
    const auto engine = handleOf<CudaEngine>(env, arguments[0], cudaEngineTag, "model");
    const auto kvCache = kvCacheOf(env, arguments[1], *engine);
    if (engine->isStepRunning) throw NativeFault("model: a step is running; one at a time");
    const VariatorCudaPath path = readPath(env, arguments[2]);
    const auto step = readBatch(env, arguments[3]);
    checkBatch(*step, {engine->vocabularySize(), engine->maxPositionCount(), kvCache->blockCount, kvCache->blockSize});
    checkLimits(*step, engine->limits());
    const auto cudaStep = std::make_shared<CudaStep>(step, path);
    engine->isStepRunning = true;
    return promise(env,
                   {[cudaStep](napi_env resultEnv) { return stepOutput(resultEnv, *cudaStep); },
                    [engine] { engine->isStepRunning = false; },
                    [engine] { return engine->isDeviceLost(); }},
                   [&](Settled settled) { engine->run(cudaStep, kvCache, std::move(settled)); });
  });
}

napi_value closeKvCache(napi_env env, napi_callback_info info) {
  return call<1>(env, info, [&](napi_value* arguments) -> napi_value {
    handleOf<CudaKvCache>(env, arguments[0], cudaKvCacheTag, "kvCache").reset();
    return nullptr;
  });
}

// Waits for the step under way; its promise still settles.
napi_value closeModel(napi_env env, napi_callback_info info) {
  return call<1>(env, info, [&](napi_value* arguments) -> napi_value {
    auto& engine = handleOf<CudaEngine>(env, arguments[0], cudaEngineTag, "model");
    engine->stop();
    engine.reset();
    return nullptr;
  });
}

}  // namespace

napi_value bindCuda(napi_env env, napi_callback_info info) {
  napi_value classes[2];
  size_t count = 2;
  if (napi_get_cb_info(env, info, &count, classes, nullptr, nullptr) != napi_ok) return nullptr;
  keepClass(env, classes[0], bindingOf(env).errorClass);
  keepClass(env, classes[1], bindingOf(env).deviceLostClass);
  readySettling(env);
  return call<4>(env, info, [&](napi_value* arguments) {
    const std::string file = readString(env, arguments[2], "libraryFile");
    const auto ordinal = static_cast<int>(readInteger(env, arguments[3], "ordinal", 0, 1023));
    if (bindings().count(env) == 0) {
      const auto library = CudaLibrary::open(file, ordinal);
      const auto telemetryThread = std::make_shared<TelemetryThread>();
      bindings()[env] = {library, telemetryThread};
      bindingOf(env).stops.push_back([env, telemetryThread] {
        telemetryThread->thread.stop();
        bindings().erase(env);
      });
    } else {
      CudaLibrary::open(file, ordinal);
    }
    const napi_value result = makeObject(env);
    const auto method = [env](const char* utf8Name, napi_callback callback) {
      return napi_property_descriptor{utf8Name, nullptr, callback, nullptr, nullptr, nullptr, napi_enumerable, nullptr};
    };
    const napi_property_descriptor methods[] = {
        method("device", device),           method("telemetry", telemetry),         method("mmaTileCount", mmaTileCount),
        method("openModel", openModel),     method("createKvCache", createKvCache), method("prepare", prepare),
        method("kvBlockCount", kvBlockCount), method("convertKvCache", convertKvCache),
        method("isBatchInvariant", isBatchInvariant), method("runStep", runStep),   method("closeKvCache", closeKvCache),
        method("closeModel", closeModel)};
    napi_define_properties(env, result, sizeof methods / sizeof methods[0], methods);
    return result;
  });
}

}  // namespace variator
