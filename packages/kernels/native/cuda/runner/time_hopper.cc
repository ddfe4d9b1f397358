// `time-hopper` of the runner: the kernels of gemm_wgmma.h, skinny_wgmma.h, prefill_wgmma.h and decode_wgmma.h, every variant
// over the shapes of Llama-3.1-8B and one square; latent attention and experts over those of DeepSeek-R1. One table:
// microseconds, bytes and operations a second. Refused on the emulated device but for --quick, which only shows that it runs.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "../../native_fault.h"
#include "../checks/checks.h"
#include "../decode_wgmma.h"
#include "../gemm_wgmma.h"
#include "../mla_wgmma.h"
#include "../prefill_wgmma.h"
#include "../skinny_wgmma.h"
#include "commands.h"
#include "timing.h"

namespace variator::cuda {
namespace {

struct Projection {
  const char* name;
  int32_t columns, depth;
};

class HopperTimings {
 public:
  HopperTimings(Stream stream, bool isQuick, const DeviceInfo& device)
      : stream_(stream), random_(11), multiprocessorCount_(device.multiprocessorCount), scale_(isQuick ? TimingScale{2, 1, 1} : TimingScale{24, 50, 4 * device.l2Bytes}) {
    std::printf("%-10s %-34s %-40s %10s %9s %9s\n", "kernel", "shape", "parameters", "us", "GB/s", "TFLOP/s");
  }

  void gemm(const Projection& p, int32_t rows) {
    for (const GemmVariant& v : gemmVariants()) {
      if (v.tileM > std::max(64, rows)) continue;
      const bool isBf16 = v.type == GemmType::bf16;
      const int64_t elementBytes = isBf16 ? 2 : 1, weightBytes = int64_t{p.columns} * p.depth * elementBytes;
      const int copies = copiesOf(weightBytes);
      const auto weights = randomBytes(copies * weightBytes, isBf16), activations = randomBytes(int64_t{rows} * p.depth * elementBytes, isBf16);
      const auto scales = upload(std::vector<float>(static_cast<size_t>((int64_t{rows} + p.columns) * ceilDivide(p.depth, 128)), 0.01f));
      const DeviceArray<float> out(int64_t{rows} * p.columns);
      const double us = timed([&](int i) {
        gemmWgmma(v, {activations.data(), weights.data() + i % copies * weightBytes, isBf16 ? nullptr : scales.data(), isBf16 ? nullptr : scales.data(), nullptr,
                      nullptr, nullptr, out.data(), rows, p.columns, p.depth, {}}, stream_);
      });
      const char* types[] = {"bf16", "e4m3", "e4m3 blocks"};
      print("gemm", shapeOf(p, rows), std::string(types[static_cast<int>(v.type)]) + " " + std::to_string(v.tileM) + " x " + std::to_string(v.tileN) + ", " +
            std::to_string(v.stages) + " stages, cluster " + std::to_string(v.clusterM) + (v.isFloatOut ? ", f32" : ""), us,
            static_cast<double>(weightBytes + int64_t{rows} * p.depth * elementBytes + int64_t{rows} * p.columns * (v.isFloatOut ? 4 : 2)),
            2.0 * rows * p.columns * p.depth);
    }
  }

  void skinny(const Projection& p, int32_t rows) {
    for (SkinnyVariant v : skinnyVariants()) {
      if (v.mostRows < rows || v.mostRows >= 2 * rows + 8) continue;
      for (const int splits : {1, 2, 4, 8}) {
        v.splits = splits;
        const int64_t elementBytes = v.isE4m3 ? 1 : 2, weightBytes = int64_t{p.columns} * p.depth * elementBytes;
        const int copies = copiesOf(weightBytes);
        const auto weights = randomBytes(copies * weightBytes, !v.isE4m3), activations = randomBytes(int64_t{rows} * p.depth * elementBytes, !v.isE4m3);
        const auto scales = upload(std::vector<float>(static_cast<size_t>(std::max(rows, p.columns)), 0.01f));
        const auto arrivals = upload(std::vector<uint32_t>(static_cast<size_t>(skinnyTileCount(v, p.columns))));
        const DeviceArray<float> partials(skinnyPartialCount(v, p.columns) + 1);
        const DeviceArray<Bf16> out(int64_t{rows} * p.columns);
        const double us = timed([&](int i) {
          skinnyWgmma(v, {activations.data(), weights.data() + i % copies * weightBytes, v.isE4m3 ? scales.data() : nullptr, v.isE4m3 ? scales.data() : nullptr,
                          nullptr, nullptr, out.data(), nullptr, nullptr, partials.data(), arrivals.data(), rows, p.columns, p.depth}, stream_);
        });
        print("skinny", shapeOf(p, rows), std::string(v.isE4m3 ? "e4m3 " : "bf16 ") + std::to_string(v.tileM) + " x " + std::to_string(v.mostRows) + " x " + std::to_string(v.tileK) +
              ", " + std::to_string(v.stages) + " stages, splits " + std::to_string(splits), us, static_cast<double>(weightBytes), 2.0 * rows * p.columns * p.depth);
      }
    }
  }

  // A step of `tokens`, each sent to `chosen` of the experts, all of them equally; rows in the order of experts.
  void experts(const Projection& p, int32_t count, int32_t chosen, int32_t tokens) {
    for (const GemmVariant& v : gemmVariants()) {
      // As the engine would hold them: bf16, or e4m3 in blocks.
      if (v.isFloatOut || v.clusterM > 1 || v.type == GemmType::e4m3) continue;
      const bool isBf16 = v.type == GemmType::bf16;
      const int32_t each = static_cast<int32_t>(ceilDivide(int64_t{tokens} * chosen, count)), tilesEach = static_cast<int32_t>(ceilDivide(each, v.tileM)), rows = count * tilesEach * v.tileM;
      std::vector<int32_t> tileExperts;
      for (int32_t tile = 0; tile < count * tilesEach; tile++) tileExperts.push_back(tile / tilesEach);
      const int64_t elementBytes = isBf16 ? 2 : 1, weightBytes = int64_t{count} * p.columns * p.depth * elementBytes;
      const auto weights = randomBytes(weightBytes, isBf16), activations = randomBytes(int64_t{rows} * p.depth * elementBytes, isBf16);
      const auto scales = upload(std::vector<float>(static_cast<size_t>((int64_t{rows} + int64_t{count} * p.columns) * ceilDivide(p.depth, 128)), 0.01f));
      const auto tiles = upload(tileExperts);
      const DeviceArray<Bf16> out(int64_t{rows} * p.columns);
      GemmArguments arguments{activations.data(), weights.data(), isBf16 ? nullptr : scales.data(), isBf16 ? nullptr : scales.data(), nullptr, nullptr, nullptr, out.data(), rows, p.columns, p.depth, {}};
      arguments.groups = {tiles.data(), nullptr, 0, count};
      // Milliseconds each, over gigabytes of weights: a few are enough, and nothing of them stays in a cache.
      const double us = timed([&](int) { gemmWgmma(v, arguments, stream_); }, {std::min(2, scale_.launchesPerGraph), std::min(9, scale_.replays), 1});
      print("experts", std::string(p.name) + " " + std::to_string(tokens) + " tokens, " + std::to_string(chosen) + " of " + std::to_string(count),
            std::string(isBf16 ? "bf16 " : "e4m3 blocks ") + std::to_string(v.tileM) + " x " + std::to_string(v.tileN) + ", " + std::to_string(v.stages) + " stages", us,
            static_cast<double>(weightBytes), 2.0 * tokens * chosen * p.columns * p.depth);
    }
  }

  // Latent attention of `count` decoding sequences of one context length.
  void latent(int32_t heads, int32_t count, int32_t context) {
    const int32_t blocksEach = static_cast<int32_t>(ceilDivide(context, kvBlockTokens)), blockCount = blocksEach * count;
    const int64_t layerBytes = int64_t{2} * blockCount * kvBlockTokens * mlaRowSize;
    const int copies = copiesOf(layerBytes);
    const auto latents = randomBytes(copies * layerBytes, true), queries = randomBytes(int64_t{2} * count * heads * mlaRowSize, true);
    const DeviceArray<Bf16> out(int64_t{count} * heads * mlaLatentSize);
    std::vector<int32_t> tables(static_cast<size_t>(blockCount));
    std::iota(tables.begin(), tables.end(), 0);
    for (int32_t i = blockCount - 1; i > 0; i--) std::swap(tables[i], tables[random_.below(i + 1)]);
    const auto tableArray = upload(tables), counts = upload(std::vector<int32_t>(static_cast<size_t>(count), context));
    const auto arrivals = upload(std::vector<uint32_t>(static_cast<size_t>(count * ceilDivide(heads, mlaHeadsPerBlock))));
    for (const int32_t splitTokens : {64, 256, 512, 1024, 4096}) {
      if (splitTokens > 64 && splitTokens >= 2 * context) continue;
      MlaArguments a{reinterpret_cast<const Bf16*>(queries.data()), nullptr, tableArray.data(), blocksEach, counts.data(), out.data(), count, heads, blockCount, splitTokens, context, 0.07f, nullptr, arrivals.data()};
      const DeviceArray<float> partials(mlaPartialCount(a) + 1);
      a.partials = partials.data();
      const double us = timed([&](int i) {
        a.latents = reinterpret_cast<const Bf16*>(latents.data() + i % copies * layerBytes);
        mlaDecodeByWgmma(a, stream_);
      });
      print("latent", std::to_string(count) + " at " + std::to_string(context) + ", " + std::to_string(heads) + " heads", "split " + std::to_string(splitTokens), us,
            2.0 * count * context * mlaRowSize, 2.0 * count * context * heads * (mlaRowSize + mlaLatentSize));
    }
  }

  // `count` sequences of one context length, `tokens` rows each: a chunk, or decoding rows.
  void attention(int32_t heads, int32_t kvHeads, int32_t headSize, int32_t count, int32_t context, int32_t tokens) {
    const int32_t blocksEach = static_cast<int32_t>(ceilDivide(context + tokens, kvBlockTokens)), blockCount = blocksEach * count, group = heads / kvHeads;
    const int64_t layerSize = int64_t{blockCount} * kvHeads * kvBlockTokens * headSize;
    const int copies = copiesOf(4 * layerSize);
    const auto kv = randomBytes(copies * 4 * layerSize, true), queries = randomBytes(int64_t{2} * count * tokens * heads * headSize, true);
    const DeviceArray<Bf16> out(int64_t{count} * tokens * heads * headSize);
    std::vector<int32_t> tables(static_cast<size_t>(blockCount)), starts, contexts(static_cast<size_t>(count), context);
    std::iota(tables.begin(), tables.end(), 0);
    for (int32_t i = blockCount - 1; i > 0; i--) std::swap(tables[i], tables[random_.below(i + 1)]);
    for (int32_t s = 0; s <= count; s++) starts.push_back(s * tokens);
    const auto tableArray = upload(tables), startArray = upload(starts), contextArray = upload(contexts);
    const auto time = [&](const std::string& parameters, int32_t perItem, int32_t splitTokens, const auto& run) {
      std::vector<int32_t> sequences, pairs;
      // The items with the longest contexts first, so that the last ones to run are short.
      for (int32_t pair = (tokens * group - 1) / perItem * perItem; pair >= 0; pair -= perItem) {
        for (int32_t s = 0; s < count; s++) {
          sequences.push_back(s);
          pairs.push_back(pair);
        }
      }
      const auto sequenceArray = upload(sequences), pairArray = upload(pairs);
      AttentionArguments a{};
      a.queries = reinterpret_cast<const Bf16*>(queries.data());
      a.queryStride = heads * headSize;
      a.blockTables = tableArray.data();
      a.blockTableStride = blocksEach;
      a.tokenStarts = startArray.data();
      a.contextLengths = contextArray.data();
      a.itemSequences = sequenceArray.data();
      a.itemFirstPairs = pairArray.data();
      a.itemCount = static_cast<int32_t>(sequences.size());
      a.out = out.data();
      a.headCount = heads;
      a.kvHeadCount = kvHeads;
      a.headSize = headSize;
      a.splitTokens = splitTokens;
      a.scale = 1 / std::sqrt(static_cast<float>(headSize));
      const double us = run(a, [&](int i) {
        auto* keys = reinterpret_cast<Bf16*>(kv.data()) + i % copies * 2 * layerSize;
        a.kv = {keys, keys + layerSize};
        return a;
      });
      const double seen = static_cast<double>(count) * tokens * (context + (tokens + 1) / 2.0);
      print(tokens > 16 ? "prefill" : "decode", std::to_string(count) + " x " + std::to_string(tokens) + " at " + std::to_string(context), parameters, us,
            4.0 * count * (context + tokens) * kvHeads * headSize, 4.0 * seen * heads * headSize);
    };
    const int32_t rows = count * tokens;
    if (tokens > 16) {
      for (const PrefillVariant& v : prefillVariants()) {
        if (v.headSize != headSize) continue;
        time(std::to_string(v.stages) + " stages" + (v.takesTurns ? ", turns" : ""), prefillPairsPerItem(heads, kvHeads), 0, [&](AttentionArguments&, const auto& at) {
          return timed([&](int i) { prefillByWgmma(v, at(i), rows, blockCount, stream_); });
        });
      }
      return;
    }
    for (const DecodeVariant& v : decodeVariants()) {
      const int32_t perItem = decodePairsPerItem(v, heads, kvHeads);
      if (v.headSize != headSize || perItem == 0) continue;
      for (const int32_t splitTokens : {256, 512, 1024, 4096}) {
        if (splitTokens > 256 && splitTokens >= 2 * context) continue;
        const auto timeBy = [&](int32_t workers) {
          time(std::to_string(v.mostPairs) + " pairs, " + std::to_string(v.stages) + " stages, split " + std::to_string(splitTokens) + (workers > 0 ? " by " + std::to_string(workers) : ""), perItem, splitTokens,
               [&](AttentionArguments& a, const auto& at) {
                 const DeviceArray<float> partials(decodePartialCount(v, a, context + tokens));
                 const auto arrivals = upload(std::vector<uint32_t>(static_cast<size_t>(int64_t{a.itemCount} * kvHeads)));
                 a.partials = partials.data();
                 a.splitWorkers = workers;
                 return timed([&](int i) { decodeByWgmma(v, at(i), arrivals.data(), context + tokens, rows, blockCount, stream_); });
               });
        };
        timeBy(0);
        // As the engine shares splits out: so many blocks that they fill the device twice.
        const auto workers = static_cast<int32_t>(ceilDivide(2 * int64_t{multiprocessorCount_}, int64_t{count} * kvHeads));
        if (workers < ceilDivide(context + tokens, splitTokens)) timeBy(workers);
      }
    }
  }

 private:
  // Once outside of a graph first: what a variant refuses, or asks of the device, comes up there.
  template <typename LaunchOne>
  double timed(const LaunchOne& launchOne) const { return timed(launchOne, scale_); }
  template <typename LaunchOne>
  double timed(const LaunchOne& launchOne, const TimingScale& scale) const {
    launchOne(0);
    wait(stream_);
    return medianUs(stream_, scale, launchOne);
  }
  static std::string shapeOf(const Projection& p, int32_t rows) {
    return std::string(p.name) + " " + std::to_string(rows) + " x " + std::to_string(p.columns) + " x " + std::to_string(p.depth);
  }
  void print(const char* kernel, const std::string& shape, const std::string& parameters, double us, double bytes, double operations) const {
    std::printf("%-10s %-34s %-40s %10.2f %9.1f %9.2f\n", kernel, shape.c_str(), parameters.c_str(), us, bytes / us / 1e3, operations / us / 1e6);
    std::fflush(stdout);
  }
  int copiesOf(int64_t bytes) const {
    return static_cast<int>(std::min<int64_t>(scale_.launchesPerGraph, std::max<int64_t>(1, ceilDivide(scale_.rotatedBytes, bytes))));
  }
  template <typename T>
  DeviceArray<T> upload(const std::vector<T>& values) {
    DeviceArray<T> array(static_cast<int64_t>(values.size()));
    copyToDevice(array.data(), values.data(), array.bytes(), stream_);
    wait(stream_);
    return array;
  }
  // Normal deviates in bf16, or e4m3 of all finite magnitudes: a pattern of a mebibyte, again and again.
  DeviceArray<uint8_t> randomBytes(int64_t bytes, bool isBf16) {
    std::vector<uint8_t> pattern(static_cast<size_t>(std::min<int64_t>(bytes, 1 << 20)));
    for (size_t i = 0; i + 1 < pattern.size(); i += 2) {
      const uint16_t word = isBf16 ? toBf16(random_.normal()).bits : static_cast<uint16_t>(random_.bits() >> 40 & 0xb7b7);
      std::memcpy(&pattern[i], &word, 2);
    }
    DeviceArray<uint8_t> array(bytes);
    for (int64_t at = 0; at < bytes; at += static_cast<int64_t>(pattern.size())) {
      copyToDevice(array.data() + at, pattern.data(), std::min<int64_t>(static_cast<int64_t>(pattern.size()), bytes - at), stream_);
    }
    wait(stream_);
    return array;
  }

  Stream stream_;
  Random random_;
  int32_t multiprocessorCount_;
  TimingScale scale_;
};

}  // namespace

int runTimeHopper(const std::vector<std::string>& arguments) {
  const bool isQuick = arguments == std::vector<std::string>{"--quick"};
  if (!isQuick && !arguments.empty()) return 2;
  const DeviceInfo device = deviceInfo();
  if (device.isEmulated && !isQuick) throw NativeFault("an emulated device has no speed: time-hopper --quick only shows that everything runs");
  std::printf("device: %s%s\n", device.name.c_str(), device.isEmulated ? " (EMULATED: no hardware was used, these figures say nothing about speed)" : "");
  const Stream stream = createStream();
  HopperTimings timings(stream, isQuick, device);
  const std::vector<Projection> projections =
      isQuick ? std::vector<Projection>{{"quick", 136, 144}}
              : std::vector<Projection>{{"square", 4096, 4096}, {"qkv", 6144, 4096}, {"gate_up", 28672, 4096}, {"down", 4096, 14336}};
  for (const Projection& p : projections) {
    for (const int32_t rows : isQuick ? std::vector<int32_t>{70} : std::vector<int32_t>{128, 512, 2048, 4096}) timings.gemm(p, rows);
    for (const int32_t rows : isQuick ? std::vector<int32_t>{8} : std::vector<int32_t>{8, 16, 32, 64}) timings.skinny(p, rows);
  }
  if (isQuick) {
    timings.attention(4, 2, 64, 1, 20, 40);
    timings.attention(4, 2, 128, 2, 70, 1);
    timings.latent(70, 2, 90);
    timings.experts({"quick", 128, 144}, 3, 2, 5);
  } else {
    for (const int32_t tokens : {512, 2048, 4096, 8192}) timings.attention(32, 8, 128, 1, 0, tokens);
    timings.attention(32, 8, 64, 1, 0, 4096);
    timings.attention(32, 8, 128, 1, 6000, 512);
    for (const int32_t count : {1, 8, 32, 64}) {
      for (const int32_t context : {1000, 4000, 16000}) timings.attention(32, 8, 128, count, context, 1);
      for (const int32_t context : {1000, 4000, 16000}) timings.latent(128, count, context);
    }
    for (const int32_t tokens : {64, 512, 4096}) {
      timings.experts({"gate_up", 4096, 7168}, 256, 8, tokens);
      timings.experts({"down", 7168, 2048}, 256, 8, tokens);
    }
  }
  destroyStream(stream);
  return 0;
}

}  // namespace variator::cuda
