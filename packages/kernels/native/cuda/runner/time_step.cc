// `time-step` of the runner: decode steps of Llama-3.1-8B's shape with random weights and 1000 tokens of context each, on one
// cache, by formats of weights, kernels and batches; beside what memory gives at best. On the emulated device (--quick) it
// only shows that it runs: the figures there say nothing.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <string>

#include "../../native_fault.h"
#include "../checks/checks.h"
#include "../linear_layers.h"
#include "commands.h"
#include "read_bandwidth.h"
#include "sequences.h"
#include "timing.h"

namespace variator::cuda {
namespace {

// Every tensor is the beginning of one file of random bf16; on the device each has memory of its own.
struct RandomModel {
  explicit RandomModel(bool isQuick) : layers(isQuick ? 2 : 32) {
    VariatorCudaModelSource& s = source;
    s.layerCount = static_cast<int64_t>(layers.size());
    s.hiddenSize = isQuick ? 64 : 4096;
    s.intermediateSize = isQuick ? 96 : 14336;
    s.headCount = isQuick ? 4 : 32;
    s.kvHeadCount = isQuick ? 2 : 8;
    s.headSize = isQuick ? 64 : 128;
    s.vocabularySize = isQuick ? 256 : 128256;
    s.maxPositionCount = 8192;
    s.rmsNormEpsilon = 1e-5f;
    s.ropeAttentionFactor = 1;
    for (int64_t i = 0; i < s.headSize / 2; i++) frequencies.push_back(std::pow(5e5f, -2.0f * static_cast<float>(i) / static_cast<float>(s.headSize)));
    windows.resize(layers.size(), 0);
    std::string name = (std::filesystem::temp_directory_path() / "variator-random-XXXXXX").string();
    const int descriptor = mkstemp(name.data());
    if (descriptor < 0) throw NativeFault("a temporary file cannot be made");
    file = name;
    const auto pattern = Random(11).bf16s(1 << 20, 0.02f);
    const int64_t bytes = 2 * s.vocabularySize * s.hiddenSize, patternBytes = static_cast<int64_t>(pattern.size()) * 2;
    bool isWritten = true;
    for (int64_t at = 0; at < bytes && isWritten; at += patternBytes) {
      const int64_t part = std::min(patternBytes, bytes - at);
      isWritten = write(descriptor, pattern.data(), static_cast<size_t>(part)) == part;
    }
    close(descriptor);
    if (!isWritten) throw NativeFault(file + ": cannot be written");
    const int64_t hidden = s.hiddenSize, queries = s.headCount * s.headSize, keys = s.kvHeadCount * s.headSize;
    const auto tensor = [&](const char* what, int64_t rows, int64_t columns) {
      return VariatorCudaTensor{what, file.c_str(), "BF16", 0, rows * columns * 2, rows, columns};
    };
    for (VariatorCudaLayer& layer : layers) {
      layer = {};
      layer.inputNorm = tensor("inputNorm", 1, hidden);
      layer.postAttentionNorm = tensor("postAttentionNorm", 1, hidden);
      layer.q = tensor("q", queries, hidden);
      layer.k = tensor("k", keys, hidden);
      layer.v = tensor("v", keys, hidden);
      layer.o = tensor("o", hidden, queries);
      layer.gate = tensor("gate", s.intermediateSize, hidden);
      layer.up = tensor("up", s.intermediateSize, hidden);
      layer.down = tensor("down", hidden, s.intermediateSize);
    }
    s.embedding = s.head = tensor("embedding", s.vocabularySize, hidden);
    s.finalNorm = tensor("finalNorm", 1, hidden);
    s.ropeInverseFrequencies = frequencies.data();
    s.windowTokens = windows.data();
    s.layers = layers.data();
  }
  ~RandomModel() { unlink(file.c_str()); }
  RandomModel(const RandomModel&) = delete;
  RandomModel& operator=(const RandomModel&) = delete;

  // Bytes of matrices that a decode step reads.
  double weightBytes(int32_t weights) const {
    const VariatorCudaModelSource& s = source;
    const double layer = static_cast<double>(s.hiddenSize) * static_cast<double>(2 * (s.headCount + s.kvHeadCount) * s.headSize + 3 * s.intermediateSize);
    const double head = static_cast<double>(s.vocabularySize) * static_cast<double>(s.hiddenSize);
    const double all = layer * static_cast<double>(s.layerCount);
    if (weights == VARIATOR_CUDA_WEIGHTS_BF16) return 2 * (all + head);
    return (weights == VARIATOR_CUDA_WEIGHTS_E4M3 ? all : all * (0.5 + 4.0 / 128)) + head;
  }
  double kvBytesPerToken(int32_t kvFormat) const {
    const double elementBytes = kvFormat == VARIATOR_CUDA_KV_FP8 ? 1.0 + 4.0 / static_cast<double>(source.headSize) : 2.0;
    return 2 * elementBytes * static_cast<double>(source.layerCount * source.kvHeadCount * source.headSize);
  }

  std::vector<VariatorCudaLayer> layers;
  std::vector<float> frequencies;
  std::vector<int32_t> windows;
  std::string file;
  VariatorCudaModelSource source{};
};

double readBytesPerMs(bool isQuick, int32_t multiprocessorCount) {
  const OwnedStream stream;
  const int64_t bytes = isQuick ? 1 << 16 : int64_t{1} << 30;
  const DeviceArray<uint8_t> from(bytes);
  fill(from.data(), 1, bytes, stream);
  const DeviceArray<uint32_t> out(1);
  const double us = medianUs(stream, {2, isQuick ? 1 : 20, 1}, [&](int) { readAll(from.data(), bytes, out.data(), 4 * static_cast<uint32_t>(multiprocessorCount), stream); });
  return static_cast<double>(bytes) / us * 1e3;
}

}  // namespace

int runTimeStep(const std::vector<std::string>& arguments) {
  const bool isQuick = arguments.size() == 1 && arguments[0] == "--quick";
  if (!arguments.empty() && !isQuick) return 2;
  const DeviceInfo device = deviceInfo();
  if (device.isEmulated && !isQuick) throw NativeFault("an emulated device has no speed: time-step --quick only shows that everything runs");
  const double readPerMs = readBytesPerMs(isQuick, device.multiprocessorCount);
  const RandomModel model(isQuick);
  const int32_t context = isQuick ? 20 : 1000, mostSequences = isQuick ? 3 : 256, atOnce = isQuick ? 3 : 8;
  const int replays = isQuick ? 1 : 20;
  const VariatorCudaPath base{VARIATOR_CUDA_LINEAR_WGMMA, VARIATOR_CUDA_WEIGHTS_BF16, VARIATOR_CUDA_KV_BF16, 256, 0, 2, 8, 1};
  Sequences sequences(model.source, mostSequences, context + 1, atOnce * context, base);
  Random random(5);
  for (int32_t first = 0; first < mostSequences; first += atOnce) {
    std::vector<Part> parts;
    for (int32_t i = first; i < std::min(first + atOnce, mostSequences); i++) {
      Part part{i, {}};
      for (int32_t t = 0; t < context; t++) part.tokens.push_back(static_cast<int32_t>(random.below(model.source.vocabularySize)));
      parts.push_back(part);
    }
    sequences.step(parts, false);
  }
  if (device.isEmulated) std::printf("EMULATED: no hardware was used, these figures say nothing about speed\n");
  else std::printf("device: %s\n", device.name.c_str());
  std::printf("decode steps of Llama-3.1-8B's shape, %d tokens of context each; read ceiling %.0f GB/s\n", context, readPerMs / 1e6);
  std::printf("%-8s %-8s %-8s %6s %10s %12s %10s\n", "attend", "weights", "linear", "batch", "ms", "tokens/s", "% of read");
  const char* weightNames[] = {"bf16", "e4m3", "int4"};
  // A kernel for few or for many rows is another path's beyond them.
  struct Timed {
    int32_t linear, leastBatch, mostBatch;
    const char* name;
  };
  const Timed timed[] = {{VARIATOR_CUDA_LINEAR_MMA, 1, 256, "mma"}, {VARIATOR_CUDA_LINEAR_GEMV, 1, 8, "gemv"}, {VARIATOR_CUDA_LINEAR_SKINNY, 9, 64, "skinny"}, {VARIATOR_CUDA_LINEAR_WGMMA, 128, 256, "wgmma"}};
  struct Attention {
    int32_t kvFormat, decode;
    const char* name;
  };
  const Attention attentions[] = {{VARIATOR_CUDA_KV_BF16, VARIATOR_CUDA_DECODE_MMA, "bf16"}, {VARIATOR_CUDA_KV_BF16, VARIATOR_CUDA_DECODE_WGMMA, "wgmma"}, {VARIATOR_CUDA_KV_FP8, VARIATOR_CUDA_DECODE_MMA, "fp8"}};
  for (const Attention& attention : attentions) {
    const int32_t kvFormat = attention.kvFormat;
    for (int32_t weights = VARIATOR_CUDA_WEIGHTS_BF16; weights <= VARIATOR_CUDA_WEIGHTS_INT4; weights++) {
      for (const Timed& kernel : timed) {
        VariatorCudaPath path = base;
        path.linear = kernel.linear;
        path.weights = weights;
        if (weights == VARIATOR_CUDA_WEIGHTS_INT4 && usesWgmma(path)) continue;
        path.kvFormat = kvFormat;
        path.decode = attention.decode;
        sequences.use(path);
        for (const int32_t batch : isQuick ? std::vector<int32_t>{1, 3} : std::vector<int32_t>{1, 8, 16, 32, 64, 128, 256}) {
          if (!isQuick && (batch < kernel.leastBatch || batch > kernel.mostBatch)) continue;
          std::vector<double> samples;
          for (int i = 0; i < replays + 2; i++) {
            std::vector<Part> parts;
            for (int32_t s = 0; s < batch; s++) {
              sequences.rewind(s, context);
              parts.push_back({s, {static_cast<int32_t>(random.below(model.source.vocabularySize))}});
            }
            const double ms = sequences.step(parts, false).result.deviceMs;
            if (i >= 2) samples.push_back(ms);
          }
          std::sort(samples.begin(), samples.end());
          const double ms = samples[samples.size() / 2];
          const double bytes = model.weightBytes(weights) + batch * model.kvBytesPerToken(kvFormat) * (context + 1);
          std::printf("%-8s %-8s %-8s %6d %10.3f %12.0f %10.1f\n", attention.name, weightNames[weights], kernel.name, batch, ms, batch / ms * 1e3, 100 * bytes / ms / readPerMs);
        }
      }
    }
  }
  return 0;
}

}  // namespace variator::cuda
