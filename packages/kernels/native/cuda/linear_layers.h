// The linear layers of one model: its matrices in bf16 and, once a path asks for them, rounded to e4m3 or to 4 bits; and
// which kernel multiplies how many rows on a path. Owned by the engine. Formats that came once stay until the model is
// closed, so that a switch between paths moves no weights. The LM head is never rounded to 4 bits: it goes by e4m3 there.
#pragma once
#include <array>
#include <memory>
#include <vector>

#include "device_model.h"
#include "gemm_library.h"
#include "linear_quantised.h"

namespace variator::cuda {

enum class MatrixRole : int32_t { Qkv, O, GateUp, Down, Head };

// Throws NativeFault for values of `linear`, `weights` and tiles that no kernel has.
void checkLinearPath(const VariatorCudaPath& path);
// Whether steps of many rows, and chunks' attention where it can, go by Hopper's own instructions.
bool usesWgmma(const VariatorCudaPath& path);

class LinearLayers {
 public:
  // The model must outlive it. mostTokens: rows of a product.
  LinearLayers(const DeviceModel& model, int32_t mostTokens) : model_(model), mostTokens_(mostTokens), multiprocessorCount_(deviceInfo().multiprocessorCount) {}

  // Makes the codes that the path reads, on the device, and waits for them. Idempotent. Throws NativeFault where a matrix's
  // columns do not fit the format, the path's library or memory is not to be had; then nothing is kept of it.
  void prepare(const VariatorCudaPath& path, Stream stream);
  // out = x W^T for a layer's matrix (the head: any layer), [rowCount, rows]. Returns the number of launches.
  int32_t multiply(const VariatorCudaPath& path, MatrixRole role, int32_t layer, const Bf16* x, void* out, Take take, int32_t rowCount, Stream stream) const;
  // Of the codes that were made so far.
  int64_t codeBytes() const { return codeBytes_; }

 private:
  struct Matrix {
    const Bf16* values;
    int32_t rows, columns;
  };
  struct Fp8Copy {
    DeviceArray<uint8_t> codes;
    DeviceArray<float> scales;
    Fp8Matrix matrix() const { return {codes.data(), scales.data()}; }
  };
  struct Int4Copy {
    DeviceArray<uint32_t> codes;
    DeviceArray<float> scales;
    Int4Matrix matrix() const { return {codes.data(), scales.data()}; }
  };
  Matrix matrixOf(MatrixRole role, int32_t layer) const;
  Fp8Copy fp8Of(MatrixRole role, int32_t layer, Stream stream) const;
  Int4Copy int4Of(MatrixRole role, int32_t layer, Stream stream) const;
  // By Hopper's own instructions: of one to 64 rows, or of many. In e4m3 the rows of x are rounded first.
  int32_t multiplyByWgmma(const Fp8Copy* copy, const LinearArguments& arguments, Stream stream) const;
  void multiplySkinny(const Fp8Copy* copy, const LinearArguments& arguments, Stream stream) const;
  int32_t skinnySplitsOf(const Matrix& matrix, bool isE4m3) const;

  const DeviceModel& model_;
  int32_t mostTokens_, multiprocessorCount_;
  std::vector<std::array<Fp8Copy, 4>> fp8_;    // [layer][role], empty before they are prepared
  std::vector<std::array<Int4Copy, 4>> int4_;  // the same
  Fp8Copy fp8Head_;
  std::unique_ptr<GemmLibrary> library_;  // once a path by it is prepared
  Fp8Copy activations_;  // [mostTokens, widest columns], and a scale a row
  DeviceArray<float> skinnyPartials_;     // once a path with skinny products is prepared
  DeviceArray<uint32_t> skinnyArrivals_;  // zeros
  int64_t codeBytes_ = 0;
};

}  // namespace variator::cuda
