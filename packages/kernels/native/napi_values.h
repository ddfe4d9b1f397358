// Reads JavaScript values with their names, so that a fault can say which argument is wrong; writes results. Used by
// addon.cc alone.
#pragma once
#include <node_api.h>

#include <cstdint>
#include <string>
#include <vector>

#include "native_fault.h"

namespace variator {

// Throws NativeFault where Node-API refuses a call.
void checkStatus(napi_status status, const char* what);

napi_value propertyOf(napi_env env, napi_value object, const char* name);
bool isNull(napi_env env, napi_value value);
// A whole number from `least` to `most`.
int64_t readInteger(napi_env env, napi_value value, const std::string& name, int64_t least, int64_t most);
double readNumber(napi_env env, napi_value value, const std::string& name);
bool readBoolean(napi_env env, napi_value value, const std::string& name);
std::string readString(napi_env env, napi_value value, const std::string& name);
// Copies a typed array of exactly the given type.
template <typename T>
std::vector<T> readTypedArray(napi_env env, napi_value value, const std::string& name);

int64_t integerOf(napi_env env, napi_value object, const char* name, int64_t least, int64_t most);

napi_value makeObject(napi_env env);
napi_value makeNumber(napi_env env, double number);
napi_value makeString(napi_env env, const std::string& text);
napi_value makeNull(napi_env env);
napi_value makeBoolean(napi_env env, bool value);
napi_value makeInt32Array(napi_env env, const std::vector<int32_t>& values);
napi_value makeFloat32Array(napi_env env, const std::vector<float>& values);
void setProperty(napi_env env, napi_value object, const char* name, napi_value value);

}  // namespace variator
