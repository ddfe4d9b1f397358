// `time` of the runner: the machine's ceilings first, then every kernel over its parameters and the shapes of a model, as one
// table and as JSON. On the emulated device (--quick) it only shows that it runs: the figures there say nothing.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numeric>

#include "../../native_fault.h"
#include "../attention.h"
#include "../checks/checks.h"
#include "../linear_quantised.h"
#include "../rms_norm.h"
#include "../sample.h"
#include "commands.h"
#include "read_bandwidth.h"
#include "timing.h"

namespace variator::cuda {
namespace {

struct ModelSizes {
  int32_t hidden, intermediate, heads, kvHeads, headSize, vocabulary;
};

class Timings {
 public:
  Timings(Stream stream, bool isQuick, const DeviceInfo& device)
      : stream_(stream), device_(device), random_(7), scale_(isQuick ? TimingScale{2, 1, 1} : TimingScale{24, 50, 4 * device.l2Bytes}), isQuick_(isQuick) {}

  void ceilings() {
    const int64_t bytes = isQuick_ ? 1 << 16 : int64_t{1} << 30;
    const auto from = randomBytes(bytes), to = DeviceArray<uint8_t>(bytes);
    const DeviceArray<uint32_t> out(1);
    TimingScale few = scale_;
    few.launchesPerGraph = 2;
    few.replays = isQuick_ ? 1 : 20;
    const auto blocks = static_cast<uint32_t>(device_.multiprocessorCount);
    double best = 0;
    for (const uint32_t perProcessor : {2u, 4u}) {
      const double us = medianUs(stream_, few, [&](int) { readAll(from.data(), bytes, out.data(), perProcessor * blocks, stream_); });
      add({"ceiling: read", std::to_string(bytes >> 20) + " MiB", std::to_string(perProcessor) + " blocks/SM", us, static_cast<double>(bytes), 0});
      best = std::max(best, static_cast<double>(bytes) / us);
    }
    readBytesPerUs_ = best;
    const double copyUs = medianUs(stream_, few, [&](int) { copyOnDevice(to.data(), from.data(), bytes, stream_); });
    add({"ceiling: copy", std::to_string(bytes >> 20) + " MiB", "", copyUs, 2.0 * static_cast<double>(bytes), 0});
    TimingScale many = scale_;
    many.launchesPerGraph = isQuick_ ? 4 : 500;
    add({"launch gap", "empty kernel", "graph", medianUs(stream_, many, [&](int) { doNothing(stream_); }), 0, 0});
    add({"launch gap", "empty kernel", "eager", eagerUs(stream_, many, [&](int) { doNothing(stream_); }), 0, 0});
  }

  void linear(const std::string& name, int32_t rows, int32_t columns, const std::vector<int32_t>& rowCounts) {
    const int64_t weightBytes = int64_t{rows} * columns * 2;
    const auto copies = static_cast<int>(std::min<int64_t>(scale_.launchesPerGraph, std::max<int64_t>(1, ceilDivide(scale_.rotatedBytes, weightBytes))));
    const int32_t mostRows = *std::max_element(rowCounts.begin(), rowCounts.end());
    const auto weights = randomBf16(copies * int64_t{rows} * columns), x = randomBf16(int64_t{mostRows} * columns);
    const DeviceArray<Bf16> out(int64_t{mostRows} * rows);
    for (const int32_t rowCount : rowCounts) {
      const auto argumentsOf = [&](int i) {
        return LinearArguments{x.data(), weights.data() + i % copies * int64_t{rows} * columns, out.data(), Take::AsBf16, rowCount, rows, columns};
      };
      const std::string shape = name + " " + std::to_string(rowCount) + " x " + std::to_string(rows) + " x " + std::to_string(columns);
      const double bytes = static_cast<double>(weightBytes) + 2.0 * rowCount * (columns + rows), operations = 2.0 * rowCount * rows * columns;
      if (rowCount <= mostGemvRows) {
        for (const int32_t perWarp : {1, 2, 4}) {
          for (const int32_t loads : {4, 8}) {
            const double us = medianUs(stream_, scale_, [&](int i) { linearByGemv(argumentsOf(i), {perWarp, loads}, stream_); });
            add({"gemv", shape, std::to_string(perWarp) + " rows/warp, " + std::to_string(loads) + " loads", us, bytes, operations});
          }
        }
      }
      for (int32_t tile = 1; tile <= mmaTileCount(); tile++) {
        const MmaTile t = mmaTileOf(tile);
        // Tiles far from the number of rows are no candidates.
        if (t.tokens > 8 && (t.tokens > 4 * rowCount || rowCount > 64 * t.tokens)) continue;
        if (t.tokens == 8 && rowCount > 64) continue;
        const double us = medianUs(stream_, scale_, [&](int i) { linearByMma(argumentsOf(i), tile, stream_); });
        add({"mma", shape, "tile " + std::to_string(tile) + ": " + std::to_string(t.outputs) + " x " + std::to_string(t.tokens) + ", " + std::to_string(t.stages) + " stages", us, bytes, operations});
      }
    }
  }

  // The same over random codes of 8 and of 4 bits.
  void linearQuantised(const std::string& name, int32_t rows, int32_t columns, const std::vector<int32_t>& rowCounts) {
    const int64_t size = int64_t{rows} * columns, groups = int64_t{rows} * int4GroupsOf(columns);
    const auto copiesOf = [&](int64_t bytes) {
      return static_cast<int>(std::min<int64_t>(scale_.launchesPerGraph, std::max<int64_t>(1, ceilDivide(scale_.rotatedBytes, bytes))));
    };
    const int fp8Copies = copiesOf(size), int4Copies = copiesOf(size / 2);
    const auto codes = randomBytes(std::max(fp8Copies * size, int4Copies * size / 2));
    const auto scales = repeated(std::max<int64_t>(fp8Copies * rows, int4Copies * groups), std::vector<float>(4096, 0.01f));
    const int32_t mostRows = *std::max_element(rowCounts.begin(), rowCounts.end());
    const auto x = randomBf16(int64_t{mostRows} * columns);
    const DeviceArray<Bf16> out(int64_t{mostRows} * rows);
    const auto time = [&](const char* format, double weightBytes, const auto& matrixOf) {
      for (const int32_t rowCount : rowCounts) {
        const LinearArguments arguments{x.data(), nullptr, out.data(), Take::AsBf16, rowCount, rows, columns};
        const std::string shape = name + " " + std::to_string(rowCount) + " x " + std::to_string(rows) + " x " + std::to_string(columns);
        const double bytes = weightBytes + 2.0 * rowCount * (columns + rows), operations = 2.0 * rowCount * rows * columns;
        for (int32_t perWarp = 1; perWarp <= 2 && rowCount <= mostGemvRows; perWarp++) {
          const double us = medianUs(stream_, scale_, [&](int i) { linearByGemv(arguments, matrixOf(i), perWarp, stream_); });
          add({std::string("gemv ") + format, shape, std::to_string(perWarp) + " rows/warp", us, bytes, operations});
        }
        for (int32_t tile = 1; tile <= mmaTileCount(); tile++) {
          const MmaTile t = mmaTileOf(tile);
          if ((t.tokens > 8 && (t.tokens > 4 * rowCount || rowCount > 64 * t.tokens)) || (t.tokens == 8 && rowCount > 64)) continue;
          const double us = medianUs(stream_, scale_, [&](int i) { linearByMma(arguments, matrixOf(i), tile, stream_); });
          add({std::string("mma ") + format, shape, "tile " + std::to_string(tile) + ": " + std::to_string(t.outputs) + " x " + std::to_string(t.tokens), us, bytes, operations});
        }
      }
    };
    time("e4m3", static_cast<double>(size + 4 * rows), [&](int i) { return Fp8Matrix{codes.data() + i % fp8Copies * size, scales.data() + i % fp8Copies * rows}; });
    time("int4", static_cast<double>(size / 2 + 4 * groups), [&](int i) {
      return Int4Matrix{reinterpret_cast<const uint32_t*>(codes.data() + i % int4Copies * (size / 2)), scales.data() + i % int4Copies * groups};
    });
  }

  // Decoding rows of `count` sequences at one context length, and one chunk of a prompt.
  void attention(const ModelSizes& m, int32_t count, int32_t context, int32_t chunkTokens) {
    const int32_t blocksEach = static_cast<int32_t>(ceilDivide(context + chunkTokens, kvBlockTokens)), blockCount = blocksEach * count;
    const int64_t layerSize = int64_t{blockCount} * m.kvHeads * kvBlockTokens * m.headSize;
    const int64_t pairBytes = 4 * layerSize;
    const auto copies = static_cast<int>(std::min<int64_t>(scale_.launchesPerGraph, std::max<int64_t>(1, ceilDivide(scale_.rotatedBytes, pairBytes))));
    if (copies * pairBytes > device_.freeBytes / 2) return;
    const auto kv = randomBf16(copies * 2 * layerSize);
    const int32_t tokens = count * chunkTokens, group = m.heads / m.kvHeads;
    const auto queries = randomBf16(int64_t{tokens} * m.heads * m.headSize);
    const DeviceArray<Bf16> out(int64_t{tokens} * m.heads * m.headSize);
    std::vector<int32_t> tables(blockCount), starts, contexts(count, context), partialStarts;
    std::iota(tables.begin(), tables.end(), 0);
    for (int32_t i = blockCount - 1; i > 0; i--) std::swap(tables[i], tables[random_.below(i + 1)]);
    for (int32_t s = 0; s <= count; s++) starts.push_back(s * chunkTokens);
    const auto tableArray = upload(tables), startArray = upload(starts), contextArray = upload(contexts);
    const auto time = [&](int32_t splitTokens, int32_t workers, int32_t rowTiles) {
      std::vector<int32_t> sequences, pairs;
      partialStarts.clear();
      const auto splits = static_cast<int32_t>(ceilDivide(context + 1, splitTokens));
      for (int32_t s = 0; s < count; s++) {
        partialStarts.push_back(s * splits);
        for (int32_t pair = 0; pair < chunkTokens * group; pair += 16 * rowTiles) {
          sequences.push_back(s);
          pairs.push_back(pair);
        }
      }
      const auto sequenceArray = upload(sequences), pairArray = upload(pairs), partialArray = upload(partialStarts);
      const DeviceArray<float> partials(workers > 0 ? int64_t{count} * splits * m.heads * (m.headSize + 2) : 1);
      const double us = medianUs(stream_, scale_, [&](int i) {
        Bf16* keys = kv.data() + i % copies * 2 * layerSize;
        attend({queries.data(), m.heads * m.headSize, {keys, keys + layerSize}, tableArray.data(), blocksEach, startArray.data(), contextArray.data(),
                sequenceArray.data(), pairArray.data(), static_cast<int32_t>(sequences.size()), out.data(), m.heads, m.kvHeads, m.headSize, 0, splitTokens,
                1 / std::sqrt(static_cast<float>(m.headSize)), workers, partials.data(), partialArray.data()},
               rowTiles, stream_);
      });
      const double seen = static_cast<double>(count) * chunkTokens * (context + (chunkTokens + 1) / 2.0);
      add({chunkTokens == 1 ? "attention, decode" : "attention, prefill", std::to_string(count) + " x " + std::to_string(chunkTokens) + " at " + std::to_string(context),
           "split " + std::to_string(splitTokens) + ", " + (workers > 0 ? std::to_string(workers) + " workers" : "loop") + ", " + std::to_string(rowTiles) + " row tiles", us,
           4.0 * count * (context + chunkTokens) * m.kvHeads * m.headSize, 4.0 * seen * m.heads * m.headSize});
    };
    if (chunkTokens > 1) {
      for (const int32_t rowTiles : {1, 2, 4}) time(256, 0, rowTiles);
      return;
    }
    for (const int32_t splitTokens : {128, 256, 512}) {
      for (const int32_t workers : {0, 2, 8, 32}) {
        if (workers * splitTokens < 2 * context || workers <= 2) time(splitTokens, workers, 1);
      }
    }
  }

  void small(const ModelSizes& m, int32_t rowCount) {
    const auto weight = upload(random_.normals(m.hidden));
    const auto residual = upload(random_.normals(int64_t{rowCount} * m.hidden)), logits = upload(random_.normals(int64_t{rowCount} * m.vocabulary, 3));
    const DeviceArray<Bf16> out(int64_t{rowCount} * m.hidden);
    const auto gateUp = randomBf16(int64_t{rowCount} * 2 * m.intermediate);
    const DeviceArray<Bf16> gated(int64_t{rowCount} * m.intermediate);
    const std::string rows = std::to_string(rowCount) + " rows";
    add({"rmsNorm", rows, "", medianUs(stream_, scale_, [&](int) { rmsNorm({residual.data(), nullptr, weight.data(), nullptr, out.data(), rowCount, m.hidden, 1e-5f}, stream_); }),
         6.0 * rowCount * m.hidden, 0});
    add({"swiGlu", rows, "", medianUs(stream_, scale_, [&](int) { swiGlu({gateUp.data(), gated.data(), rowCount, m.intermediate}, stream_); }), 6.0 * rowCount * m.intermediate, 0});
    const auto ones = upload(std::vector<float>(rowCount, 1)), zeros = upload(std::vector<float>(rowCount, 0)), nine = upload(std::vector<float>(rowCount, 0.9f));
    const auto off = upload(std::vector<int32_t>(rowCount, 0)), forty = upload(std::vector<int32_t>(rowCount, 40));
    const auto seeds = upload(std::vector<uint32_t>(2 * rowCount, 5));
    const DeviceArray<int32_t> drawn(rowCount);
    const auto sampled = [&](const char* what, const DeviceArray<float>& temperatures, const DeviceArray<float>& topPs, const DeviceArray<int32_t>& topKs) {
      const double us = medianUs(stream_, scale_, [&](int) {
        sample({logits.data(), temperatures.data(), topPs.data(), zeros.data(), topKs.data(), seeds.data(), off.data(), drawn.data(), rowCount, m.vocabulary}, stream_);
      });
      add({"sample", rows + " of " + std::to_string(m.vocabulary), what, us, 4.0 * rowCount * m.vocabulary, 0});
    };
    sampled("greedy", zeros, ones, off);
    sampled("temperature", ones, ones, off);
    sampled("top-k 40, top-p 0.9", ones, nine, forty);
  }

  void print() const {
    std::printf("%-20s %-34s %-36s %10s %9s %9s %9s\n", "kernel", "shape", "parameters", "us", "GB/s", "TFLOP/s", "% of read");
    for (const TimedRow& row : rows_) {
      std::printf("%-20s %-34s %-36s %10.2f %9.1f %9.2f %9.1f\n", row.kernel.c_str(), row.shape.c_str(), row.parameters.c_str(), row.us, row.bytes / row.us / 1e3,
                  row.operations / row.us / 1e6, shareOf(row));
    }
  }
  void writeJson(const std::string& file) const {
    std::FILE* out = std::fopen(file.c_str(), "w");
    if (out == nullptr) throw NativeFault(file + ": cannot be written");
    std::fprintf(out, "{\n  \"device\": \"%s\",\n  \"isEmulated\": %s,\n  \"readBytesPerUs\": %.1f,\n  \"rows\": [\n", device_.name.c_str(), device_.isEmulated ? "true" : "false", readBytesPerUs_);
    for (size_t i = 0; i < rows_.size(); i++) {
      const TimedRow& row = rows_[i];
      std::fprintf(out, "    {\"kernel\": \"%s\", \"shape\": \"%s\", \"parameters\": \"%s\", \"us\": %.3f, \"bytes\": %.0f, \"operations\": %.0f}%s\n", row.kernel.c_str(), row.shape.c_str(),
                   row.parameters.c_str(), row.us, row.bytes, row.operations, i + 1 < rows_.size() ? "," : "");
    }
    std::fprintf(out, "  ]\n}\n");
    std::fclose(out);
  }

 private:
  void add(TimedRow row) { rows_.push_back(std::move(row)); }
  // Of the bytes that the device reads in that time at best, in percent.
  double shareOf(const TimedRow& row) const { return readBytesPerUs_ > 0 ? 100 * row.bytes / row.us / readBytesPerUs_ : 0; }

  template <typename T>
  DeviceArray<T> upload(const std::vector<T>& values) {
    DeviceArray<T> array(static_cast<int64_t>(values.size()));
    copyToDevice(array.data(), values.data(), array.bytes(), stream_);
    wait(stream_);
    return array;
  }
  // A random megabyte, again and again: more than a row of any matrix, and quick to make.
  template <typename T>
  DeviceArray<T> repeated(int64_t count, const std::vector<T>& pattern) {
    DeviceArray<T> array(count);
    for (int64_t at = 0; at < count; at += static_cast<int64_t>(pattern.size())) {
      const int64_t part = std::min<int64_t>(static_cast<int64_t>(pattern.size()), count - at);
      copyToDevice(array.data() + at, pattern.data(), part * static_cast<int64_t>(sizeof(T)), stream_);
    }
    wait(stream_);
    return array;
  }
  DeviceArray<Bf16> randomBf16(int64_t count) { return repeated(count, random_.bf16s(std::min<int64_t>(count, 524287))); }
  DeviceArray<uint8_t> randomBytes(int64_t count) {
    std::vector<uint8_t> pattern(static_cast<size_t>(std::min<int64_t>(count, 1 << 20)));
    for (auto& one : pattern) one = static_cast<uint8_t>(random_.bits() >> 40);
    return repeated(count, pattern);
  }

  Stream stream_;
  DeviceInfo device_;
  Random random_;
  TimingScale scale_;
  bool isQuick_;
  double readBytesPerUs_ = 0;
  std::vector<TimedRow> rows_;
};

}  // namespace

int runTime(const std::vector<std::string>& arguments) {
  bool isQuick = false;
  std::string json;
  for (size_t i = 0; i < arguments.size(); i++) {
    if (arguments[i] == "--quick") isQuick = true;
    else if (arguments[i] == "--json" && i + 1 < arguments.size()) json = arguments[++i];
    else return 2;
  }
  const DeviceInfo device = deviceInfo();
  if (device.isEmulated && !isQuick) throw NativeFault("an emulated device has no speed: time --quick only shows that everything runs");
  const Stream stream = createStream();
  // Llama-3.1-8B's layers; in the emulator the smallest that pass every line.
  const ModelSizes m = isQuick ? ModelSizes{64, 64, 4, 2, 16, 96} : ModelSizes{4096, 14336, 32, 8, 128, 128256};
  const std::vector<int32_t> counts = isQuick ? std::vector<int32_t>{1, 9} : std::vector<int32_t>{1, 4, 8, 16, 32, 64, 128, 256, 2048};
  Timings timings(stream, isQuick, device);
  timings.ceilings();
  timings.linear("qkv", (m.heads + 2 * m.kvHeads) * m.headSize, m.hidden, counts);
  timings.linear("o", m.hidden, m.heads * m.headSize, counts);
  timings.linear("gate_up", 2 * m.intermediate, m.hidden, counts);
  timings.linear("down", m.hidden, m.intermediate, counts);
  const std::vector<int32_t> fewCounts = isQuick ? counts : std::vector<int32_t>{1, 8, 32, 64, 256};
  timings.linearQuantised("gate_up", 2 * m.intermediate, m.hidden, fewCounts);
  timings.linearQuantised("down", m.hidden, m.intermediate, fewCounts);
  timings.linear("head", m.vocabulary, m.hidden, isQuick ? counts : std::vector<int32_t>{1, 8, 64});
  for (const int32_t count : isQuick ? std::vector<int32_t>{2} : std::vector<int32_t>{1, 8, 32, 64}) {
    for (const int32_t context : isQuick ? std::vector<int32_t>{70} : std::vector<int32_t>{1000, 4000, 16000}) timings.attention(m, count, context, 1);
  }
  timings.attention(m, 1, isQuick ? 5 : 0, isQuick ? 9 : 2048);
  timings.attention(m, 1, isQuick ? 30 : 6000, isQuick ? 7 : 512);
  for (const int32_t rows : isQuick ? std::vector<int32_t>{2} : std::vector<int32_t>{1, 64}) timings.small(m, rows);
  if (device.isEmulated) std::printf("EMULATED: no hardware was used, these figures say nothing about speed\n");
  else std::printf("device: %s\n", device.name.c_str());
  timings.print();
  if (!json.empty()) timings.writeJson(json);
  destroyStream(stream);
  return 0;
}

}  // namespace variator::cuda
