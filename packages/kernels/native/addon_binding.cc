// See addon_binding.h.
#include "addon_binding.h"

namespace variator {
namespace {

// A promise and what it resolves to; made and settled on the event loop.
struct Promised {
  napi_deferred deferred;
  std::string fault;
  Outcome outcome;
};

void settleOnLoop(napi_env env, napi_value, void* context, void* data) {
  const std::unique_ptr<Promised> promised(static_cast<Promised*>(data));
  auto& binding = *static_cast<Binding*>(context);
  if (env == nullptr) return;  // the environment is going down
  if (--binding.pendingCount == 0) napi_unref_threadsafe_function(env, binding.settling);
  const Outcome& outcome = promised->outcome;
  if (outcome.settled) outcome.settled();
  if (!promised->fault.empty()) {
    const bool isLost = binding.deviceLostClass != nullptr && outcome.isDeviceLost && outcome.isDeviceLost();
    const napi_ref errorClass = isLost ? binding.deviceLostClass : binding.errorClass;
    napi_reject_deferred(env, promised->deferred, makeError(env, errorClass, promised->fault));
    return;
  }
  try {
    napi_resolve_deferred(env, promised->deferred, outcome.result(env));
  } catch (const NativeFault& fault) {
    napi_reject_deferred(env, promised->deferred, makeError(env, binding.errorClass, fault.what()));
  }
}

}  // namespace

Binding& bindingOf(napi_env env) {
  void* data = nullptr;
  napi_get_instance_data(env, &data);
  return *static_cast<Binding*>(data);
}

void keepClass(napi_env env, napi_value errorClass, napi_ref& reference) {
  if (reference != nullptr) napi_delete_reference(env, reference);
  napi_create_reference(env, errorClass, 1, &reference);
}

void readySettling(napi_env env) {
  Binding& binding = bindingOf(env);
  if (binding.settling != nullptr) return;
  napi_value name;
  napi_create_string_utf8(env, "variator.settle", NAPI_AUTO_LENGTH, &name);
  napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, &binding, settleOnLoop,
                                  &binding.settling);
  napi_unref_threadsafe_function(env, binding.settling);
  // Runs before the thread-safe function is torn down: no thread may call it afterwards.
  napi_add_env_cleanup_hook(
      env,
      [](void* data) {
        for (const auto& stop : static_cast<Binding*>(data)->stops) stop();
      },
      &binding);
}

napi_value makeError(napi_env env, napi_ref reference, const std::string& message) {
  napi_value errorClass, error, text = makeString(env, message);
  checkStatus(napi_get_reference_value(env, reference, &errorClass), "NativeError");
  checkStatus(napi_new_instance(env, errorClass, 1, &text, &error), "NativeError");
  return error;
}

napi_value promise(napi_env env, Outcome outcome, const std::function<void(Settled)>& start) {
  Binding& binding = bindingOf(env);
  auto* promised = new Promised{nullptr, {}, std::move(outcome)};
  napi_value value;
  checkStatus(napi_create_promise(env, &promised->deferred, &value), "a promise");
  if (binding.pendingCount++ == 0) napi_ref_threadsafe_function(env, binding.settling);
  start([promised, settling = binding.settling](const std::string& fault) {
    promised->fault = fault;
    if (napi_call_threadsafe_function(settling, promised, napi_tsfn_blocking) != napi_ok) delete promised;
  });
  return value;
}

napi_value rejected(napi_env env, const std::string& fault) {
  napi_deferred deferred;
  napi_value value;
  checkStatus(napi_create_promise(env, &deferred, &value), "a promise");
  checkStatus(napi_reject_deferred(env, deferred, makeError(env, bindingOf(env).errorClass, fault)), "a promise");
  return value;
}

}  // namespace variator
