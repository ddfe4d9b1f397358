// What every native file throws when a contract is broken or memory is not to be had. addon.cc turns it into the
// NativeError of native.ts; nothing else catches it.
#pragma once
#include <stdexcept>
#include <string>

namespace variator {

struct NativeFault : std::runtime_error {
  explicit NativeFault(const std::string& message) : std::runtime_error(message) {}
};

}  // namespace variator
