// See device_model.h. Weights go through a staging buffer of host memory, rounded to bf16 on the way.
#include "device_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <string>

#include "../float_ops.h"
#include "../native_fault.h"
#include "../tensor.h"
#include "attention.h"

namespace variator::cuda {
namespace {

void require(bool isMet, const std::string& fault) {
  if (!isMet) throw NativeFault(fault);
}

class Loader {
 public:
  Loader(Stream stream, DeviceModel& model) : stream_(stream), model_(model), staging_(allocateHost(stagingBytes)) {}
  ~Loader() { releaseHost(staging_); }

  // The matrices one below another.
  DeviceArray<Bf16> matrix(const std::vector<std::pair<const VariatorCudaTensor*, int64_t>>& parts, int64_t columns) {
    int64_t rows = 0;
    for (const auto& part : parts) rows += part.second;
    DeviceArray<Bf16> array(rows * columns);
    Bf16* to = array.data();
    for (const auto& [source, partRows] : parts) {
      upload(tensorOf(*source, partRows, columns), to);
      to += partRows * columns;
    }
    model_.weightBytes += array.bytes();
    return array;
  }

  std::vector<float> values(const VariatorCudaTensor& source, int64_t size) {
    const Tensor tensor = tensorOf(source, 1, size);
    std::vector<float> row(static_cast<size_t>((size + 31) / 32 * 32));
    floatOps().dequantiseRow(tensor.data, tensor.dtype, size, row.data());
    row.resize(static_cast<size_t>(size));
    return row;
  }
  DeviceArray<float> vector(const std::vector<float>& values) {
    DeviceArray<float> array(static_cast<int64_t>(values.size()));
    copyToDevice(array.data(), values.data(), array.bytes(), stream_);
    wait(stream_);
    model_.weightBytes += array.bytes();
    return array;
  }
  DeviceArray<float> vector(const VariatorCudaTensor& source, int64_t size) { return vector(values(source, size)); }

 private:
  static constexpr int64_t stagingBytes = int64_t{16} << 20;

  Tensor tensorOf(const VariatorCudaTensor& source, int64_t rows, int64_t columns) {
    const std::string name = source.name == nullptr ? "a tensor" : source.name;
    require(source.file != nullptr && source.dtype != nullptr, name + ": the shape needs it, and it is not there");
    const std::string where = name + " in " + source.file + ": ";
    const auto shapeText = [](int64_t r, int64_t c) { return "[" + std::to_string(r) + ", " + std::to_string(c) + "]"; };
    require(source.rows == rows && source.columns == columns,
            where + "is " + shapeText(source.rows, source.columns) + ", but the shape needs " + shapeText(rows, columns));
    Tensor tensor;
    try {
      tensor.dtype = parseDtype(source.dtype);
      tensor.rowBytes = rowBytesOf(tensor.dtype, columns);
    } catch (const NativeFault& fault) {
      throw NativeFault(where + fault.what());
    }
    tensor.rows = rows;
    tensor.columns = columns;
    auto& file = files_[source.file];
    if (!file) file = std::make_unique<MappedFile>(source.file);
    require(source.byteLength == rows * tensor.rowBytes, where + "has " + std::to_string(source.byteLength) + " bytes, not " + std::to_string(rows * tensor.rowBytes));
    require(source.offset >= 0 && source.offset <= file->size() - source.byteLength, where + "ends beyond the file");
    tensor.data = file->data() + source.offset;
    return tensor;
  }

  void upload(const Tensor& tensor, Bf16* to) {
    auto* staged = static_cast<Bf16*>(staging_);
    const int64_t rowsAtOnce = std::max<int64_t>(1, stagingBytes / (tensor.columns * 2));
    require(tensor.columns * 2 <= stagingBytes, "a matrix row is longer than " + std::to_string(stagingBytes) + " bytes");
    std::vector<float> row(static_cast<size_t>((tensor.columns + 31) / 32 * 32));
    for (int64_t first = 0; first < tensor.rows; first += rowsAtOnce) {
      const int64_t count = std::min(rowsAtOnce, tensor.rows - first);
      for (int64_t r = 0; r < count; r++) {
        Bf16* out = staged + r * tensor.columns;
        if (tensor.dtype == Dtype::BF16) {
          std::memcpy(out, tensor.row(first + r), static_cast<size_t>(tensor.columns) * 2);
          continue;
        }
        floatOps().dequantiseRow(tensor.row(first + r), tensor.dtype, tensor.columns, row.data());
        for (int64_t k = 0; k < tensor.columns; k++) out[k] = toBf16(row[k]);
      }
      copyToDevice(to + first * tensor.columns, staged, count * tensor.columns * 2, stream_);
      wait(stream_);
    }
  }

  Stream stream_;
  DeviceModel& model_;
  void* staging_;
  std::map<std::string, std::unique_ptr<MappedFile>> files_;
};

bool isThere(const VariatorCudaTensor& tensor) { return tensor.file != nullptr; }

bool isSame(const VariatorCudaTensor& a, const VariatorCudaTensor& b) {
  return isThere(a) && isThere(b) && std::strcmp(a.file, b.file) == 0 && a.offset == b.offset;
}

void checkSource(const VariatorCudaModelSource& s) {
  require(s.expertCount == 0, "shape: mixtures of experts have no CUDA kernels here");
  require(s.latentRank == 0, "shape: latent attention has no CUDA kernels here");
  for (const int64_t size : {s.layerCount, s.hiddenSize, s.intermediateSize, s.headCount, s.kvHeadCount, s.headSize, s.vocabularySize, s.maxPositionCount}) {
    require(size >= 1 && size <= int64_t{1} << 24, "shape: sizes must be from 1 to 16777216");
  }
  require(isAttentionHeadSize(s.headSize), "shape: there are no CUDA kernels for heads of " + std::to_string(s.headSize) + " dimensions, but for 16, 32, 64, 96 and 128");
  require(s.headCount % s.kvHeadCount == 0, "shape: headCount must be a multiple of kvHeadCount");
  require(s.hiddenSize % 8 == 0 && s.intermediateSize % 8 == 0, "shape: hiddenSize and intermediateSize must be multiples of 8");
  require(s.rmsNormEpsilon >= 0 && s.rmsNormEpsilon < 1, "shape: rmsNormEpsilon must be from 0 to 1");
  require(s.ropeAttentionFactor > 0 && s.ropeAttentionFactor <= 100, "shape: ropeAttentionFactor must be from 0 to 100");
  for (int64_t i = 0; i < s.headSize / 2; i++) require(s.ropeInverseFrequencies[i] >= 0 && std::isfinite(s.ropeInverseFrequencies[i]), "shape: ropeInverseFrequencies must be numbers from 0");
  for (int64_t i = 0; i < s.layerCount; i++) require(s.windowTokens[i] >= 0, "shape: windowTokens must be 0 or more");
}

}  // namespace

DeviceModel openDeviceModel(const VariatorCudaModelSource& s, Stream stream) {
  checkSource(s);
  DeviceModel model{};
  model.layerCount = static_cast<int32_t>(s.layerCount);
  model.hiddenSize = static_cast<int32_t>(s.hiddenSize);
  model.intermediateSize = static_cast<int32_t>(s.intermediateSize);
  model.headCount = static_cast<int32_t>(s.headCount);
  model.kvHeadCount = static_cast<int32_t>(s.kvHeadCount);
  model.headSize = static_cast<int32_t>(s.headSize);
  model.vocabularySize = static_cast<int32_t>(s.vocabularySize);
  model.maxPositionCount = static_cast<int32_t>(s.maxPositionCount);
  model.rmsNormEpsilon = s.rmsNormEpsilon;
  model.ropeAttentionFactor = s.ropeAttentionFactor;
  model.isRopeInterleaved = s.isRopeInterleaved != 0;
  model.windowTokens.assign(s.windowTokens, s.windowTokens + s.layerCount);

  Loader loader(stream, model);
  const int64_t hidden = s.hiddenSize, queries = s.headCount * s.headSize, keys = s.kvHeadCount * s.headSize;
  model.frequencies = loader.vector(std::vector<float>(s.ropeInverseFrequencies, s.ropeInverseFrequencies + s.headSize / 2));
  model.embedding = loader.matrix({{&s.embedding, s.vocabularySize}}, hidden);
  if (!isSame(s.embedding, s.head)) model.ownHead = loader.matrix({{&s.head, s.vocabularySize}}, hidden);
  model.finalNorm = loader.vector(s.finalNorm, hidden);
  for (int64_t i = 0; i < s.layerCount; i++) {
    const VariatorCudaLayer& from = s.layers[i];
    DeviceLayer layer;
    layer.inputNorm = loader.vector(from.inputNorm, hidden);
    layer.postAttentionNorm = loader.vector(from.postAttentionNorm, hidden);
    layer.qkv = loader.matrix({{&from.q, queries}, {&from.k, keys}, {&from.v, keys}}, hidden);
    layer.o = loader.matrix({{&from.o, hidden}}, queries);
    layer.gateUp = loader.matrix({{&from.gate, s.intermediateSize}, {&from.up, s.intermediateSize}}, hidden);
    layer.down = loader.matrix({{&from.down, hidden}}, s.intermediateSize);
    if (isThere(from.qBias) || isThere(from.kBias) || isThere(from.vBias)) {
      std::vector<float> all;
      for (const auto& [bias, size] : {std::pair{&from.qBias, queries}, {&from.kBias, keys}, {&from.vBias, keys}}) {
        const auto part = isThere(*bias) ? loader.values(*bias, size) : std::vector<float>(static_cast<size_t>(size), 0.0f);
        all.insert(all.end(), part.begin(), part.end());
      }
      layer.qkvBias = loader.vector(all);
    }
    require(isThere(from.qNorm) == isThere(from.kNorm), "layer " + std::to_string(i) + ": qNorm and kNorm come together or not at all");
    if (isThere(from.qNorm)) {
      layer.qNorm = loader.vector(from.qNorm, s.headSize);
      layer.kNorm = loader.vector(from.kNorm, s.headSize);
    }
    model.layers.push_back(std::move(layer));
  }
  return model;
}

}  // namespace variator::cuda
