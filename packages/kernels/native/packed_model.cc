// See packed_model.h.
#include "packed_model.h"

namespace variator {
namespace {

// Of panels.h; another number makes files of before unusable.
constexpr const char* packingVersion = "packing 1";

}  // namespace

template <typename Pack>
void PackedModel::place(const Model& model, LinearFamily family, const uint8_t* base, const Pack& pack) {
  matrices.clear();
  byteLength_ = 0;
  const auto placeAs = [&](const Tensor& tensor, PanelWidth width) -> Panels {
    const PanelFormat format = panelFormatOf(tensor.dtype, width);
    const int64_t offset = byteLength_;
    byteLength_ += packedBytesOf(tensor, format);
    pack(tensor, format, offset);
    return {base == nullptr ? nullptr : base + offset, format, groupCountOf(tensor)};
  };
  const auto place = [&](const Tensor& tensor) { return placeAs(tensor, panelWidthOf(family)); };
  for (const auto& layer : model.matrices) {
    matrices.push_back({place(layer.q), place(layer.o), place(layer.k), place(layer.v), place(layer.queryDown),
                        place(layer.keyValueDown), place(layer.keyValueUp), {}, {}, place(layer.gate), place(layer.up),
                        place(layer.down), {}, {}});
    for (const auto& one : layer.keyUpTransposed) matrices.back().keyUpTransposed.push_back(place(one));
    for (const auto& one : layer.valueUp) matrices.back().valueUp.push_back(place(one));
    for (const auto& expert : layer.experts) {
      matrices.back().experts.push_back({place(expert.gate), place(expert.up), place(expert.down)});
    }
  }
  head = placeAs(model.head, headWidthOf(family));
}

PackedModel::PackedModel(const Model& model, LinearFamily family, const PackedCache& cache) {
  uint64_t digest = 0xcbf29ce484222325ull;
  const auto describe = [&](const Tensor& tensor, PanelFormat format, int64_t) {
    for (const int64_t number : {tensor.rows, tensor.columns, static_cast<int64_t>(tensor.dtype), static_cast<int64_t>(format)}) {
      digest = (digest ^ static_cast<uint64_t>(number)) * 0x100000001b3ull;
    }
  };
  place(model, family, nullptr, describe);
  const std::string layout = std::string(packingVersion) + " " + std::to_string(digest);
  if (!cache.file.empty()) file_ = PackedFile::open(cache, layout, byteLength_);
  if (file_ != nullptr) {
    place(model, family, file_->data(), [](const Tensor&, PanelFormat, int64_t) {});
    return;
  }
  arena_ = std::make_unique<Arena>(byteLength_, "packed weights");
  uint8_t* base = arena_->data();
  place(model, family, base, [base](const Tensor& tensor, PanelFormat format, int64_t offset) {
    packPanels(tensor, format, base + offset);
  });
  if (!cache.file.empty()) PackedFile::write(cache, layout, base, byteLength_);
}

}  // namespace variator
