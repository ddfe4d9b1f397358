// See napi_values.h.
#include "napi_values.h"

#include <cmath>
#include <cstring>

namespace variator {
namespace {

template <typename T>
constexpr napi_typedarray_type arrayType();
template <>
constexpr napi_typedarray_type arrayType<int32_t>() { return napi_int32_array; }
template <>
constexpr napi_typedarray_type arrayType<uint32_t>() { return napi_uint32_array; }
template <>
constexpr napi_typedarray_type arrayType<uint8_t>() { return napi_uint8_array; }
template <>
constexpr napi_typedarray_type arrayType<float>() { return napi_float32_array; }

template <typename T>
const char* arrayName() {
  switch (arrayType<T>()) {
    case napi_int32_array: return "an Int32Array";
    case napi_uint32_array: return "a Uint32Array";
    case napi_uint8_array: return "a Uint8Array";
    default: return "a Float32Array";
  }
}

template <typename T>
napi_value makeTypedArray(napi_env env, const std::vector<T>& values) {
  void* data = nullptr;
  napi_value buffer, array;
  checkStatus(napi_create_arraybuffer(env, values.size() * sizeof(T), &data, &buffer), "a result");
  if (!values.empty()) std::memcpy(data, values.data(), values.size() * sizeof(T));
  checkStatus(napi_create_typedarray(env, arrayType<T>(), values.size(), buffer, 0, &array), "a result");
  return array;
}

}  // namespace

void checkStatus(napi_status status, const char* what) {
  if (status != napi_ok) throw NativeFault(std::string(what) + ": Node-API refused it");
}

napi_value propertyOf(napi_env env, napi_value object, const char* name) {
  napi_valuetype type;
  napi_value value;
  if (napi_typeof(env, object, &type) != napi_ok || type != napi_object ||
      napi_get_named_property(env, object, name, &value) != napi_ok) {
    throw NativeFault(std::string(name) + ": its object is not one");
  }
  return value;
}

bool isNull(napi_env env, napi_value value) {
  napi_valuetype type;
  return napi_typeof(env, value, &type) == napi_ok && type == napi_null;
}

double readNumber(napi_env env, napi_value value, const std::string& name) {
  double number;
  if (napi_get_value_double(env, value, &number) != napi_ok) throw NativeFault(name + ": must be a number");
  return number;
}

int64_t readInteger(napi_env env, napi_value value, const std::string& name, int64_t least, int64_t most) {
  const double number = readNumber(env, value, name);
  if (!(number >= static_cast<double>(least) && number <= static_cast<double>(most)) || std::floor(number) != number) {
    throw NativeFault(name + ": must be a whole number from " + std::to_string(least) + " to " + std::to_string(most));
  }
  return static_cast<int64_t>(number);
}

bool readBoolean(napi_env env, napi_value value, const std::string& name) {
  bool flag;
  if (napi_get_value_bool(env, value, &flag) != napi_ok) throw NativeFault(name + ": must be true or false");
  return flag;
}

std::string readString(napi_env env, napi_value value, const std::string& name) {
  size_t length = 0;
  if (napi_get_value_string_utf8(env, value, nullptr, 0, &length) != napi_ok) {
    throw NativeFault(name + ": must be a string");
  }
  std::string text(length + 1, '\0');
  checkStatus(napi_get_value_string_utf8(env, value, text.data(), text.size(), &length), name.c_str());
  text.resize(length);
  return text;
}

template <typename T>
std::vector<T> readTypedArray(napi_env env, napi_value value, const std::string& name) {
  bool isTypedArray = false;
  napi_typedarray_type type;
  size_t length;
  void* data;
  if (napi_is_typedarray(env, value, &isTypedArray) != napi_ok || !isTypedArray ||
      napi_get_typedarray_info(env, value, &type, &length, &data, nullptr, nullptr) != napi_ok || type != arrayType<T>()) {
    throw NativeFault(name + ": must be " + arrayName<T>());
  }
  std::vector<T> values(length);
  if (length > 0) std::memcpy(values.data(), data, length * sizeof(T));
  return values;
}

template std::vector<int32_t> readTypedArray(napi_env, napi_value, const std::string&);
template std::vector<uint32_t> readTypedArray(napi_env, napi_value, const std::string&);
template std::vector<uint8_t> readTypedArray(napi_env, napi_value, const std::string&);
template std::vector<float> readTypedArray(napi_env, napi_value, const std::string&);

int64_t integerOf(napi_env env, napi_value object, const char* name, int64_t least, int64_t most) {
  return readInteger(env, propertyOf(env, object, name), name, least, most);
}

napi_value makeObject(napi_env env) {
  napi_value object;
  checkStatus(napi_create_object(env, &object), "a result");
  return object;
}

napi_value makeNumber(napi_env env, double number) {
  napi_value value;
  checkStatus(napi_create_double(env, number, &value), "a result");
  return value;
}

napi_value makeString(napi_env env, const std::string& text) {
  napi_value value;
  checkStatus(napi_create_string_utf8(env, text.data(), text.size(), &value), "a result");
  return value;
}

napi_value makeBoolean(napi_env env, bool value) {
  napi_value result;
  checkStatus(napi_get_boolean(env, value, &result), "a result");
  return result;
}

napi_value makeNull(napi_env env) {
  napi_value value;
  checkStatus(napi_get_null(env, &value), "a result");
  return value;
}

napi_value makeInt32Array(napi_env env, const std::vector<int32_t>& values) { return makeTypedArray(env, values); }
napi_value makeFloat32Array(napi_env env, const std::vector<float>& values) { return makeTypedArray(env, values); }

void setProperty(napi_env env, napi_value object, const char* name, napi_value value) {
  checkStatus(napi_set_named_property(env, object, name, value), name);
}

}  // namespace variator
