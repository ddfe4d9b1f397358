// What every function of the addon stands on: the environment's binding, handles, promises that other threads settle, and
// faults as the error classes that TypeScript gave. Used by addon.cc and cuda_addon.cc alone; knows nothing of kernels.
#pragma once
#include <node_api.h>

#include <functional>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "napi_values.h"

namespace variator {

// One for each environment (process or worker thread) that loads the addon.
struct Binding {
  napi_env env = nullptr;
  napi_ref errorClass = nullptr;       // NativeError
  napi_ref deviceLostClass = nullptr;  // DeviceLostError, where `bindCuda` gave one
  napi_threadsafe_function settling = nullptr;
  int pendingCount = 0;
  // Run before the environment goes: no thread may settle anything afterwards.
  std::vector<std::function<void()>> stops;
};

// Called from another thread, with the fault's sentence or an empty one.
using Settled = std::function<void(const std::string& fault)>;

Binding& bindingOf(napi_env env);
// Keeps the class in `reference`, in place of one that was kept before.
void keepClass(napi_env env, napi_value errorClass, napi_ref& reference);
// Makes what promises need, once an environment.
void readySettling(napi_env env);

napi_value makeError(napi_env env, napi_ref errorClass, const std::string& message);

// What a promise comes to; all of it runs on the event loop.
struct Outcome {
  std::function<napi_value(napi_env)> result;
  std::function<void()> settled;          // may be empty
  std::function<bool()> isDeviceLost;     // may be empty; asked after a fault
};
// Makes the promise; `start` launches the work and gets what to call, from any thread, when it is done.
napi_value promise(napi_env env, Outcome outcome, const std::function<void(Settled)>& start);
napi_value rejected(napi_env env, const std::string& fault);

// Reads `count` arguments, runs `work`, and throws its fault as a NativeError.
template <int count, typename Work>
napi_value call(napi_env env, napi_callback_info info, const Work& work) {
  napi_value arguments[count];
  size_t given = count;
  try {
    checkStatus(napi_get_cb_info(env, info, &given, arguments, nullptr, nullptr), "arguments");
    return work(arguments);
  } catch (const NativeFault& fault) {
    napi_throw(env, makeError(env, bindingOf(env).errorClass, fault.what()));
  } catch (const std::bad_alloc&) {
    napi_throw(env, makeError(env, bindingOf(env).errorClass, "memory is not to be had"));
  }
  return nullptr;
}

// The same for a function that answers with a promise: what is wrong with its arguments rejects it.
template <int count, typename Work>
napi_value callForPromise(napi_env env, napi_callback_info info, const Work& work) {
  return call<count>(env, info, [&](napi_value* arguments) {
    try {
      return work(arguments);
    } catch (const NativeFault& fault) {
      return rejected(env, fault.what());
    }
  });
}

// Handles are externals that hold a shared pointer; closing empties it.
template <typename T>
napi_value makeHandle(napi_env env, std::shared_ptr<T> value, const napi_type_tag& tag) {
  auto* holder = new std::shared_ptr<T>(std::move(value));
  const napi_finalize release = [](napi_env, void* data, void*) { delete static_cast<std::shared_ptr<T>*>(data); };
  napi_value handle;
  checkStatus(napi_create_external(env, holder, release, nullptr, &handle), "a handle");
  checkStatus(napi_type_tag_object(env, handle, &tag), "a handle");
  return handle;
}

template <typename T>
std::shared_ptr<T>& handleOf(napi_env env, napi_value value, const napi_type_tag& tag, const char* name) {
  napi_valuetype type;
  bool isTagged = false;
  void* data = nullptr;
  if (napi_typeof(env, value, &type) != napi_ok || type != napi_external ||
      napi_check_object_type_tag(env, value, &tag, &isTagged) != napi_ok || !isTagged ||
      napi_get_value_external(env, value, &data) != napi_ok) {
    throw NativeFault(std::string(name) + ": is not a handle of this addon");
  }
  auto& holder = *static_cast<std::shared_ptr<T>*>(data);
  if (!holder) throw NativeFault(std::string(name) + ": is closed");
  return holder;
}

}  // namespace variator
