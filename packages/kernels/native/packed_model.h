// The matrices of a model in panels: packed into an arena, or mapped from a file that an earlier start has kept. Made by
// Engine::prepare; constant afterwards, read by step.cc from every thread.
#pragma once
#include <memory>
#include <vector>

#include "model.h"
#include "packed_file.h"

namespace variator {

class PackedModel {
 public:
  PackedModel(const Model& model, LinearFamily family, const PackedCache& cache);
  int64_t byteLength() const { return byteLength_; }
  bool isFromCache() const { return file_ != nullptr; }
  std::vector<LayerMatrices<Panels>> matrices;
  Panels head;

 private:
  // Gives every matrix its place, and calls `pack(tensor, format, offset)`.
  template <typename Pack>
  void place(const Model& model, LinearFamily family, const uint8_t* base, const Pack& pack);
  int64_t byteLength_ = 0;
  std::unique_ptr<Arena> arena_;
  std::unique_ptr<PackedFile> file_;
};

}  // namespace variator
