// Ragged sequences in scattered KV blocks, poison wherever nothing was written, and what attention makes of them in double
// precision. Used by the checks of all attention over such blocks.
#pragma once
#include <algorithm>
#include <cmath>
#include <numeric>

#include "../attention.h"
#include "checks.h"

namespace variator::cuda {

struct Chunk {
  int32_t context, tokens;
};

struct Case {
  int32_t headCount, kvHeadCount, headSize, window, splitTokens;
  std::vector<Chunk> chunks;
};

struct World {
  Case c;
  int32_t rowCount = 0, stride = 0, blockCount = 0;
  std::vector<int32_t> starts{0}, contexts, tables;
  std::vector<Bf16> queries, keys, values;
};

inline World worldOf(CheckRun& run, const Case& c) {
  Random random(run.seed + static_cast<uint64_t>(c.headSize));
  World w;
  w.c = c;
  for (const Chunk& chunk : c.chunks) {
    w.stride = std::max(w.stride, static_cast<int32_t>(ceilDivide(chunk.context + chunk.tokens, kvBlockTokens)));
  }
  w.blockCount = w.stride * static_cast<int32_t>(c.chunks.size()) + 3;
  std::vector<int32_t> blocks(w.blockCount);
  std::iota(blocks.begin(), blocks.end(), 0);
  for (int32_t i = w.blockCount - 1; i > 0; i--) std::swap(blocks[i], blocks[random.below(i + 1)]);
  const int64_t slotSize = int64_t{c.kvHeadCount} * kvBlockTokens * c.headSize;
  w.keys.assign(static_cast<size_t>(w.blockCount * slotSize), Bf16{0xffff});
  w.values = w.keys;
  for (const Chunk& chunk : c.chunks) {
    w.rowCount += chunk.tokens;
    w.starts.push_back(w.rowCount);
    w.contexts.push_back(chunk.context);
    for (int32_t b = 0; b < w.stride; b++) {
      w.tables.push_back(blocks.back());
      blocks.pop_back();
    }
    const int32_t* table = w.tables.data() + w.tables.size() - w.stride;
    for (int32_t token = 0; token < chunk.context + chunk.tokens; token++) {
      for (int32_t head = 0; head < c.kvHeadCount; head++) {
        const int64_t at = table[token / kvBlockTokens] * slotSize + (int64_t{head} * kvBlockTokens + token % kvBlockTokens) * c.headSize;
        for (int32_t d = 0; d < c.headSize; d++) {
          w.keys[at + d] = toBf16(random.normal());
          w.values[at + d] = toBf16(random.normal());
        }
      }
    }
  }
  w.queries = random.bf16s(int64_t{w.rowCount} * c.headCount * c.headSize, 2);
  return w;
}

inline void checkValues(CheckRun& run, const World& w, const std::vector<Bf16>& got) {
  const Case& c = w.c;
  const int32_t group = c.headCount / c.kvHeadCount;
  const int64_t slotSize = int64_t{c.kvHeadCount} * kvBlockTokens * c.headSize;
  for (size_t s = 0; s < c.chunks.size(); s++) {
    const auto at = [&](const std::vector<Bf16>& cache, int32_t token, int32_t head, int32_t d) {
      const int64_t block = w.tables[s * w.stride + token / kvBlockTokens];
      return static_cast<double>(toFloat(cache[block * slotSize + (int64_t{head} * kvBlockTokens + token % kvBlockTokens) * c.headSize + d]));
    };
    for (int32_t t = 0; t < c.chunks[s].tokens; t++) {
      const int32_t position = c.chunks[s].context + t, first = c.window > 0 ? std::max(0, position - c.window + 1) : 0;
      for (int32_t head = 0; head < c.headCount; head++) {
        const int64_t row = (int64_t{w.starts[s]} + t) * c.headCount + head;
        std::vector<double> scores;
        double most = -1e30, total = 0;
        for (int32_t token = first; token <= position; token++) {
          double dot = 0;
          for (int32_t d = 0; d < c.headSize; d++) dot += toFloat(w.queries[row * c.headSize + d]) * at(w.keys, token, head / group, d);
          scores.push_back(dot / std::sqrt(static_cast<double>(c.headSize)));
          most = std::max(most, scores.back());
        }
        for (double& score : scores) total += score = std::exp(score - most);
        for (int32_t d = 0; d < c.headSize; d++) {
          double want = 0, size = 0;
          for (int32_t token = first; token <= position; token++) {
            const double term = scores[token - first] / total * at(w.values, token, head / group, d);
            want += term;
            size += std::abs(term);
          }
          // Weights and results are rounded to bf16.
          run.near("attend, heads of " + std::to_string(c.headSize), toFloat(got[row * c.headSize + d]), want, 0.004, 0.004 * size);
        }
      }
    }
  }
}

// One sequence of a world, or the last tokens of it.
inline World partOf(const World& w, size_t s, int32_t fromToken) {
  World part = w;
  const int32_t width = w.c.headCount * w.c.headSize;
  part.c.chunks = {{w.c.chunks[s].context + fromToken, w.c.chunks[s].tokens - fromToken}};
  part.rowCount = part.c.chunks[0].tokens;
  part.starts = {0, part.rowCount};
  part.contexts = {part.c.chunks[0].context};
  part.tables.assign(w.tables.begin() + s * w.stride, w.tables.begin() + (s + 1) * w.stride);
  part.queries.assign(w.queries.begin() + int64_t{w.starts[s] + fromToken} * width, w.queries.begin() + int64_t{w.starts[s + 1]} * width);
  return part;
}

// A world on the device: each chunk as items of at most `pairsPerItem` pairs, with items that are none before and behind them.
// The KV layer and the partials are the caller's to say.
class UploadedWorld {
 public:
  UploadedWorld(CheckRun& run, const World& w, int32_t pairsPerItem)
      : run_(run),
        queries_(run.upload(w.queries)),
        out_(run.poisoned<Bf16>(int64_t{w.rowCount} * w.c.headCount * w.c.headSize)),
        tables_(run.upload(w.tables)),
        starts_(run.upload(w.starts)),
        contexts_(run.upload(w.contexts)) {
    const Case& c = w.c;
    std::vector<int32_t> sequences{-1}, pairs{0};
    for (size_t s = 0; s < c.chunks.size(); s++) {
      for (int32_t pair = 0; pair < c.chunks[s].tokens * (c.headCount / c.kvHeadCount); pair += pairsPerItem) {
        sequences.push_back(static_cast<int32_t>(s));
        pairs.push_back(pair);
      }
    }
    sequences.push_back(-1);
    pairs.push_back(0);
    sequences_ = run.upload(sequences);
    pairs_ = run.upload(pairs);
    arguments.queries = queries_.data();
    arguments.queryStride = c.headCount * c.headSize;
    arguments.blockTables = tables_.data();
    arguments.blockTableStride = w.stride;
    arguments.tokenStarts = starts_.data();
    arguments.contextLengths = contexts_.data();
    arguments.itemSequences = sequences_.data();
    arguments.itemFirstPairs = pairs_.data();
    arguments.itemCount = static_cast<int32_t>(sequences.size());
    arguments.out = out_.data();
    arguments.headCount = c.headCount;
    arguments.kvHeadCount = c.kvHeadCount;
    arguments.headSize = c.headSize;
    arguments.windowTokens = c.window;
    arguments.splitTokens = c.splitTokens;
    arguments.scale = 1 / std::sqrt(static_cast<float>(c.headSize));
  }
  UploadedWorld(const UploadedWorld&) = delete;

  std::vector<Bf16> out() { return run_.download(out_); }

  AttentionArguments arguments{};

 private:
  CheckRun& run_;
  DeviceArray<Bf16> queries_, out_;
  DeviceArray<int32_t> tables_, starts_, contexts_, sequences_, pairs_;
};

// The rows of a world by `attend` over this KV layer.
inline std::vector<Bf16> attended(CheckRun& run, const World& w, const KvLayer& kv, int32_t rowTiles, int32_t splitWorkers) {
  const Case& c = w.c;
  std::vector<int32_t> partialStarts;
  int32_t partialCount = 0;
  for (const Chunk& chunk : c.chunks) {
    partialStarts.push_back(partialCount);
    partialCount += static_cast<int32_t>(ceilDivide(chunk.context + 1, c.splitTokens));
  }
  const auto starts = run.upload(partialStarts);
  const auto partials = run.poisoned<float>(int64_t{partialCount} * c.headCount * (c.headSize + 2));
  UploadedWorld world(run, w, 16 * rowTiles);
  AttentionArguments& a = world.arguments;
  a.kv = kv;
  a.splitWorkers = splitWorkers;
  a.partials = partials.data();
  a.partialStarts = starts.data();
  attend(a, rowTiles, run.stream);
  return world.out();
}

}  // namespace variator::cuda
