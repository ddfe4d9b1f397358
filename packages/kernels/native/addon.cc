// The border to JavaScript: the functions of native.ts in its order, and nothing else. Reads and checks arguments on the
// event loop and hands work to an Engine's threads (addon_binding.h settles their promises). Every fault leaves as the
// NativeError class that `bind` was given. What is for CUDA stands in cuda_addon.cc.
#include <node_api.h>

#include <memory>
#include <vector>

#include "addon_binding.h"
#include "addon_inputs.h"
#include "cuda_addon.h"
#include "engine.h"
#include "linear_trial.h"
#include "machine_probe.h"
#include "tiers.h"

namespace variator {
namespace {

const napi_type_tag engineTag = {0x7661726961746f72ull, 1};
const napi_type_tag kvCacheTag = {0x7661726961746f72ull, 2};

napi_value probeMachineCall(napi_env env, napi_callback_info info) {
  return call<1>(env, info, [&](napi_value* arguments) {
    const MachineProbe probe = probeMachine(
        static_cast<int>(readInteger(env, arguments[0], "threadCount", 1, ThreadTeam::maxThreadCount)));
    napi_value features;
    checkStatus(napi_create_array(env, &features), "a result");
    for (uint32_t i = 0; i < probe.features.size(); i++) {
      checkStatus(napi_set_element(env, features, i, makeString(env, probe.features[i])), "a result");
    }
    const napi_value result = makeObject(env);
    setProperty(env, result, "cpuModel", makeString(env, probe.cpuModel));
    setProperty(env, result, "coreCount", makeNumber(env, probe.coreCount));
    setProperty(env, result, "features", features);
    setProperty(env, result, "readBytesPerSecond", makeNumber(env, probe.readBytesPerSecond));
    setProperty(env, result, "float32FlopsPerSecond", makeNumber(env, probe.float32FlopsPerSecond));
    setProperty(env, result, "int8OpsPerSecond", makeNumber(env, probe.int8OpsPerSecond));
    return result;
  });
}

napi_value limitIsaCall(napi_env env, napi_callback_info info) {
  return call<1>(env, info, [&](napi_value* arguments) -> napi_value {
    limitIsa(readString(env, arguments[0], "isa"));
    return nullptr;
  });
}

napi_value multiplyCall(napi_env env, napi_callback_info info) {
  return call<5>(env, info, [&](napi_value* arguments) {
    const auto tunings = readTunings(readTypedArray<int32_t>(env, arguments[4], "tuning"), "tuning");
    if (tunings.size() != 1) throw NativeFault("tuning: must be four integers");
    Model model;
    const Tensor tensor = readTensor(env, arguments[0], model);
    const LinearVariant linear = parseLinear(readString(env, arguments[1], "linear"));
    const auto x = readTypedArray<float>(env, arguments[2], "x");
    const int64_t rowCount = readInteger(env, arguments[3], "rowCount", 1, 1 << 20);
    if (static_cast<int64_t>(x.size()) != rowCount * tensor.columns) throw NativeFault("x: must be [rowCount, columns]");
    return makeFloat32Array(env, multiplyAlone(tensor, linear, x, rowCount, tunings[0]));
  });
}

napi_value openModel(napi_env env, napi_callback_info info) {
  return call<3>(env, info, [&](napi_value* arguments) {
    const auto threadCount =
        static_cast<int>(readInteger(env, arguments[2], "maxThreadCount", 1, ThreadTeam::maxThreadCount));
    auto engine = std::make_shared<Engine>(readModel(env, arguments[0], arguments[1]), threadCount);
    bindingOf(env).stops.push_back([weak = std::weak_ptr<Engine>(engine)] {
      if (const auto open = weak.lock()) open->stop();
    });
    return makeHandle(env, std::move(engine), engineTag);
  });
}

napi_value prepareLinear(napi_env env, napi_callback_info info) {
  return callForPromise<4>(env, info, [&](napi_value* arguments) {
    const auto engine = handleOf<Engine>(env, arguments[0], engineTag, "model");
    const LinearVariant linear = parseLinear(readString(env, arguments[1], "linear"));
    PackedCache cache;
    if (!isNull(env, arguments[2])) {
      cache = {readString(env, arguments[2], "cacheFile"), readString(env, arguments[3], "cacheKey")};
    }
    const auto prepared = std::make_shared<Prepared>();
    const auto result = [prepared](napi_env resultEnv) {
      const napi_value object = makeObject(resultEnv);
      setProperty(resultEnv, object, "prepareMs", makeNumber(resultEnv, prepared->prepareMs));
      setProperty(resultEnv, object, "packedBytes", makeNumber(resultEnv, static_cast<double>(prepared->packedBytes)));
      setProperty(resultEnv, object, "isFromCache", makeBoolean(resultEnv, prepared->isFromCache));
      return object;
    };
    return promise(env, {result, [engine] {}, {}}, [&](Settled settled) {
      engine->prepare(linear, std::move(cache), prepared, std::move(settled));
    });
  });
}

napi_value linearShapes(napi_env env, napi_callback_info info) {
  return call<1>(env, info, [&](napi_value* arguments) {
    std::vector<int32_t> sizes;
    for (const LinearShape& shape : handleOf<Engine>(env, arguments[0], engineTag, "model")->model().linearShapes) {
      sizes.push_back(static_cast<int32_t>(shape.rows));
      sizes.push_back(static_cast<int32_t>(shape.columns));
    }
    return makeInt32Array(env, sizes);
  });
}

napi_value timeLinear(napi_env env, napi_callback_info info) {
  return callForPromise<7>(env, info, [&](napi_value* arguments) {
    const auto engine = handleOf<Engine>(env, arguments[0], engineTag, "model");
    const LinearVariant linear = parseLinear(readString(env, arguments[1], "linear"));
    if (linear.family == LinearFamily::Reference) throw NativeFault("linear: the reference has no tunings");
    if (!engine->isPrepared(linear)) throw NativeFault("linear: the variant is not prepared");
    const auto threadCount = static_cast<int>(readInteger(env, arguments[2], "threadCount", 1, engine->maxThreadCount()));
    const int64_t rowCount = readInteger(env, arguments[3], "rowCount", 1, 1 << 12);
    auto tunings = readTunings(readTypedArray<int32_t>(env, arguments[4], "tunings"), "tunings");
    if (tunings.empty()) throw NativeFault("tunings: must not be empty");
    const auto sampleCount = static_cast<int32_t>(readInteger(env, arguments[5], "sampleCount", 1, 1 << 20));
    const double limitMs = readNumber(env, arguments[6], "limitMs");
    if (!(limitMs >= 0 && limitMs <= 60000)) throw NativeFault("limitMs: must be from 0 to 60000");
    const auto times = std::make_shared<LinearTimes>();
    const auto result = [times](napi_env resultEnv) {
      const napi_value object = makeObject(resultEnv);
      setProperty(resultEnv, object, "usPerPanel", makeFloat32Array(resultEnv, times->usPerPanel));
      setProperty(resultEnv, object, "sampleCounts", makeInt32Array(resultEnv, times->sampleCounts));
      return object;
    };
    return promise(env, {result, [engine] {}, {}}, [&](Settled settled) {
      engine->time(linear, threadCount, rowCount, std::move(tunings), sampleCount, limitMs, times, std::move(settled));
    });
  });
}

napi_value attendCall(napi_env env, napi_callback_info info) {
  return call<1>(env, info, [&](napi_value* arguments) {
    return makeFloat32Array(env, attendAlone(readAttentionTrial(env, arguments[0])));
  });
}

napi_value timeAttentionCall(napi_env env, napi_callback_info info) {
  return callForPromise<8>(env, info, [&](napi_value* arguments) {
    const auto engine = handleOf<Engine>(env, arguments[0], engineTag, "model");
    const ModelShape& shape = engine->model().shape;
    const AttentionVariant attention = parseAttention(readString(env, arguments[1], "attention"));
    if (attention == AttentionVariant::Reference) throw NativeFault("attention: the reference has no tunings");
    const int64_t splitTokens = readInteger(env, arguments[2], "splitTokens", leastSplitTokens, mostSplitTokens);
    const auto threadCount = static_cast<int>(readInteger(env, arguments[3], "threadCount", 1, engine->maxThreadCount()));
    const auto sizes = readTypedArray<int32_t>(env, arguments[4], "shapes");
    if (sizes.empty() || sizes.size() % 3 != 0) throw NativeFault("shapes: must be [count, 3], one at least");
    std::vector<AttentionShapeOfStep> shapes;
    for (size_t i = 0; i < sizes.size(); i += 3) {
      const AttentionShapeOfStep one{sizes[i], sizes[i + 1], sizes[i + 2]};
      const bool isLegal = one.sequenceCount >= 1 && one.sequenceCount <= 1024 && one.rowCount >= 1 && one.rowCount <= 4096 &&
                           one.contextLength >= 0 && one.contextLength <= shape.maxPositionCount - one.rowCount;
      if (!isLegal) throw NativeFault("shapes: entry " + std::to_string(i / 3) + " is out of its range");
      shapes.push_back(one);
    }
    auto tunings = readAttentionTunings(readTypedArray<int32_t>(env, arguments[5], "tunings"), "tunings");
    if (tunings.empty()) throw NativeFault("tunings: must not be empty");
    const auto sampleCount = static_cast<int32_t>(readInteger(env, arguments[6], "sampleCount", 1, 1 << 20));
    const double limitMs = readNumber(env, arguments[7], "limitMs");
    if (!(limitMs >= 0 && limitMs <= 60000)) throw NativeFault("limitMs: must be from 0 to 60000");
    const auto times = std::make_shared<AttentionTimes>();
    const auto result = [times](napi_env resultEnv) {
      const napi_value object = makeObject(resultEnv);
      setProperty(resultEnv, object, "usPerLayer", makeFloat32Array(resultEnv, times->usPerLayer));
      setProperty(resultEnv, object, "sampleCounts", makeInt32Array(resultEnv, times->sampleCounts));
      return object;
    };
    return promise(env, {result, [engine] {}, {}}, [&](Settled settled) {
      engine->timeAttention(attention, splitTokens, threadCount, std::move(shapes), std::move(tunings), sampleCount, limitMs,
                            times, std::move(settled));
    });
  });
}

napi_value createKvCache(napi_env env, napi_callback_info info) {
  return call<4>(env, info, [&](napi_value* arguments) {
    const auto engine = handleOf<Engine>(env, arguments[0], engineTag, "model");
    const int64_t blockCount = readInteger(env, arguments[1], "blockCount", 1, int64_t{1} << 31);
    const int64_t blockSize = readInteger(env, arguments[2], "blockSize", 1, 4096);
    const KvFormat format = parseKvFormat(readString(env, arguments[3], "kvFormat"));
    return makeHandle(env, std::make_shared<KvCache>(engine->model().shape, blockCount, blockSize, format), kvCacheTag);
  });
}

napi_value kvBlockCount(napi_env env, napi_callback_info info) {
  return call<2>(env, info, [&](napi_value* arguments) {
    const auto kvCache = handleOf<KvCache>(env, arguments[0], kvCacheTag, "kvCache");
    const KvFormat format = parseKvFormat(readString(env, arguments[1], "kvFormat"));
    return makeNumber(env, static_cast<double>(kvCache->blockCountIn(format)));
  });
}

napi_value convertKvCache(napi_env env, napi_callback_info info) {
  return callForPromise<4>(env, info, [&](napi_value* arguments) {
    const auto engine = handleOf<Engine>(env, arguments[0], engineTag, "model");
    const auto kvCache = handleOf<KvCache>(env, arguments[1], kvCacheTag, "kvCache");
    if (engine->isStepRunning) throw NativeFault("model: a step is running; one at a time");
    const KvFormat format = parseKvFormat(readString(env, arguments[2], "kvFormat"));
    auto blockIds = readTypedArray<int32_t>(env, arguments[3], "blockIds");
    checkConversion(blockIds, format, *kvCache);
    const auto convertMs = std::make_shared<double>(0);
    engine->isStepRunning = true;
    const auto result = [convertMs](napi_env resultEnv) {
      const napi_value object = makeObject(resultEnv);
      setProperty(resultEnv, object, "convertMs", makeNumber(resultEnv, *convertMs));
      return object;
    };
    return promise(env, {result, [engine] { engine->isStepRunning = false; }, {}}, [&](Settled settled) {
      engine->convert(kvCache, format, std::move(blockIds), convertMs, std::move(settled));
    });
  });
}

napi_value stepOutput(napi_env env, const Step& step) {
  const napi_value output = makeObject(env);
  setProperty(env, output, "sampledTokenIds", makeInt32Array(env, step.sampledTokenIds));
  setProperty(env, output, "logits", step.isLogitsWanted ? makeFloat32Array(env, step.logits) : makeNull(env));
  setProperty(env, output, "logprobTokenIds", step.scoring ? makeInt32Array(env, step.logprobTokenIds) : makeNull(env));
  setProperty(env, output, "logprobs", step.scoring ? makeFloat32Array(env, step.logprobs) : makeNull(env));
  setProperty(env, output, "deviceMs", makeNumber(env, step.deviceMs));
  setProperty(env, output, "threadCount", makeNumber(env, step.threadCount));
  setProperty(env, output, "foreignCpuShare", makeNumber(env, step.foreignCpuShare));
  return output;
}

napi_value runStep(napi_env env, napi_callback_info info) {
  return callForPromise<3>(env, info, [&](napi_value* arguments) {
    const auto engine = handleOf<Engine>(env, arguments[0], engineTag, "model");
    const auto kvCache = handleOf<KvCache>(env, arguments[1], kvCacheTag, "kvCache");
    if (engine->isStepRunning) throw NativeFault("model: a step is running; one at a time");
    const auto step = readStep(env, arguments[2]);
    checkStep(*step, *engine, *kvCache);
    engine->isStepRunning = true;
    return promise(env,
                   {[step](napi_env resultEnv) { return stepOutput(resultEnv, *step); },
                    [engine] { engine->isStepRunning = false; },
                    {}},
                   [&](Settled settled) { engine->run(step, kvCache, std::move(settled)); });
  });
}

napi_value closeKvCache(napi_env env, napi_callback_info info) {
  return call<1>(env, info, [&](napi_value* arguments) -> napi_value {
    handleOf<KvCache>(env, arguments[0], kvCacheTag, "kvCache").reset();
    return nullptr;
  });
}

// Waits for the step under way; its promise still settles.
napi_value closeModel(napi_env env, napi_callback_info info) {
  return call<1>(env, info, [&](napi_value* arguments) -> napi_value {
    auto& engine = handleOf<Engine>(env, arguments[0], engineTag, "model");
    engine->stop();
    engine.reset();
    return nullptr;
  });
}

// bind(NativeError): the functions of NativeKernels.
napi_value bind(napi_env env, napi_callback_info info) {
  napi_value errorClass, result;
  size_t count = 1;
  Binding& binding = bindingOf(env);
  if (napi_get_cb_info(env, info, &count, &errorClass, nullptr, nullptr) != napi_ok ||
      napi_create_object(env, &result) != napi_ok) {
    return nullptr;
  }
  keepClass(env, errorClass, binding.errorClass);
  readySettling(env);
  const auto method = [env](const char* utf8Name, napi_callback callback) {
    return napi_property_descriptor{utf8Name, nullptr, callback, nullptr, nullptr, nullptr, napi_enumerable, nullptr};
  };
  const napi_property_descriptor methods[] = {
      method("limitIsa", limitIsaCall),       method("probeMachine", probeMachineCall),
      method("multiply", multiplyCall),       method("openModel", openModel),
      method("prepareLinear", prepareLinear), method("linearShapes", linearShapes),
      method("timeLinear", timeLinear),       method("attend", attendCall),
      method("timeAttention", timeAttentionCall), method("createKvCache", createKvCache),
      method("kvBlockCount", kvBlockCount),   method("convertKvCache", convertKvCache),
      method("runStep", runStep),             method("closeKvCache", closeKvCache),
      method("closeModel", closeModel)};
  napi_define_properties(env, result, sizeof methods / sizeof methods[0], methods);
  return result;
}

}  // namespace
}  // namespace variator

NAPI_MODULE_INIT() {
  using namespace variator;
  auto* binding = new Binding();
  binding->env = env;
  napi_set_instance_data(env, binding, [](napi_env, void* data, void*) { delete static_cast<Binding*>(data); }, nullptr);
  napi_value function;
  napi_create_function(env, "bind", NAPI_AUTO_LENGTH, bind, nullptr, &function);
  napi_set_named_property(env, exports, "bind", function);
  napi_create_function(env, "bindCuda", NAPI_AUTO_LENGTH, bindCuda, nullptr, &function);
  napi_set_named_property(env, exports, "bindCuda", function);
  return exports;
}
