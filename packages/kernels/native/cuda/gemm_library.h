// y = x W^T in bf16 by cuBLASLt where it is installed: opened by name, never linked and never needed. Made by LinearLayers for
// paths that ask for it; refuses aloud where there is none. Its orders of sums are its own and change with the number of
// rows: a row's bits depend on the step around it.
#pragma once
#include <map>
#include <memory>
#include <tuple>

#include "linear.h"

namespace variator::cuda {

struct GemmLibraryFunctions;

class GemmLibrary {
 public:
  // Whether the library was found; it is looked for once a process.
  static bool isThere();
  // Throws NativeFault that says which names were tried, or what the library said.
  GemmLibrary();
  ~GemmLibrary();
  GemmLibrary(const GemmLibrary&) = delete;
  GemmLibrary& operator=(const GemmLibrary&) = delete;

  // Any number of rows, columns a multiple of 8. May be captured into a graph. Throws NativeFault where the library has no
  // algorithm for the shape.
  void multiply(const LinearArguments& arguments, Stream stream);

 private:
  struct Plan;
  std::shared_ptr<const Plan> planOf(const LinearArguments& arguments);

  const GemmLibraryFunctions& library_;
  void* handle_ = nullptr;
  void* preference_ = nullptr;
  DeviceArray<uint8_t> workspace_;
  std::map<std::tuple<int32_t, int32_t, int32_t, Take>, std::shared_ptr<const Plan>> plans_;  // by rows, columns, rowCount, take
};

}  // namespace variator::cuda
