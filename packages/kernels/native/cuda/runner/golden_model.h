// A golden model from the flat files that cuda-pack-golden.ts writes: NAME.golden (text: shape, where tensors lie, prompts
// and the tokens that float32 gives) beside NAME.weights. Opened through the library's C ABI alone. Used by the runner.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "../variator_cuda.h"

namespace variator::cuda {

struct GoldenCase {
  std::vector<int32_t> prompt, greedy;
};

class GoldenModel {
 public:
  // Throws NativeFault where the file is not one.
  explicit GoldenModel(const std::string& file);
  GoldenModel(const GoldenModel&) = delete;
  GoldenModel& operator=(const GoldenModel&) = delete;
  const VariatorCudaModelSource& source() const { return source_; }

  std::string name;
  std::vector<GoldenCase> cases;

 private:
  VariatorCudaTensor& placeOf(const std::string& tensor);

  VariatorCudaModelSource source_{};
  std::vector<VariatorCudaLayer> layers_;
  std::vector<float> frequencies_;
  std::vector<int32_t> windows_;
  std::string weights_;
  // Strings that the source points into.
  std::vector<std::string> dtypes_, names_;
};

// Throws NativeFault with the library's sentence where `status` is not 0.
void expectDone(int32_t status, const void* handle);

}  // namespace variator::cuda
