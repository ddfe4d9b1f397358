// attend against double precision: ragged sequences in scattered blocks, groups, windows, all head sizes; and that every way
// to spread the work (row tiles, splits over blocks, alone or in a crowd, chunk by chunk) gives the same bits.
#include "../attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "checks.h"

namespace variator::cuda {
namespace {

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

World worldOf(CheckRun& run, const Case& c) {
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

// The rows of `sequences` alone, computed so.
std::vector<Bf16> attended(CheckRun& run, const World& w, int32_t rowTiles, int32_t splitWorkers) {
  const Case& c = w.c;
  const int32_t group = c.headCount / c.kvHeadCount;
  std::vector<int32_t> sequences, pairs, partialStarts;
  int32_t partialCount = 0;
  for (size_t s = 0; s < c.chunks.size(); s++) {
    partialStarts.push_back(partialCount);
    partialCount += static_cast<int32_t>(ceilDivide(c.chunks[s].context + 1, c.splitTokens));
    for (int32_t pair = 0; pair < c.chunks[s].tokens * group; pair += 16 * rowTiles) {
      sequences.push_back(static_cast<int32_t>(s));
      pairs.push_back(pair);
    }
  }
  sequences.push_back(-1);
  pairs.push_back(0);
  const auto queries = run.upload(w.queries), keys = run.upload(w.keys), values = run.upload(w.values);
  const auto tables = run.upload(w.tables), starts = run.upload(w.starts), contexts = run.upload(w.contexts);
  const auto sequenceArray = run.upload(sequences), pairArray = run.upload(pairs), partialArray = run.upload(partialStarts);
  const auto partials = run.poisoned<float>(int64_t{partialCount} * c.headCount * (c.headSize + 2));
  const auto out = run.poisoned<Bf16>(int64_t{w.rowCount} * c.headCount * c.headSize);
  attend({queries.data(), c.headCount * c.headSize, {const_cast<Bf16*>(keys.data()), const_cast<Bf16*>(values.data())}, tables.data(), w.stride,
          starts.data(), contexts.data(), sequenceArray.data(), pairArray.data(), static_cast<int32_t>(sequences.size()), out.data(), c.headCount,
          c.kvHeadCount, c.headSize, c.window, c.splitTokens, 1 / std::sqrt(static_cast<float>(c.headSize)), splitWorkers, partials.data(), partialArray.data()},
         rowTiles, run.stream);
  return run.download(out);
}

void checkValues(CheckRun& run, const World& w, const std::vector<Bf16>& got) {
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
World partOf(const World& w, size_t s, int32_t fromToken) {
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

}  // namespace

void checkAttention(CheckRun& run) {
  const Case cases[] = {
      {6, 2, 16, 0, 64, {{0, 1}, {63, 1}, {0, 33}, {150, 6}, {128, 1}}},
      {2, 2, 32, 0, 128, {{0, 70}, {130, 1}, {255, 3}}},
      {8, 1, 64, 20, 64, {{100, 3}, {7, 1}, {0, 30}}},
      {3, 1, 96, 0, 64, {{65, 2}}},
      {4, 2, 128, 70, 128, {{129, 9}, {200, 1}}},
  };
  for (const Case& c : cases) {
    const World w = worldOf(run, c);
    const auto all = attended(run, w, 1, 0);
    checkValues(run, w, all);
    for (const int32_t rowTiles : {2, 4}) run.sameBytes("row tiles of " + std::to_string(rowTiles), attended(run, w, rowTiles, 0), all);
    const int64_t width = int64_t{c.headCount} * c.headSize;
    for (size_t s = 0; s < c.chunks.size(); s++) {
      // Its last token as a decoding row: alone, by splits over one, two and five blocks.
      const World last = partOf(w, s, c.chunks[s].tokens - 1);
      const std::vector<Bf16> want(all.begin() + (w.starts[s + 1] - 1) * width, all.begin() + w.starts[s + 1] * width);
      run.sameBytes("a token alone and in its chunk", attended(run, last, 1, 0), want);
      for (const int32_t workers : {1, 2, 5}) run.sameBytes("a token by splits and in its chunk", attended(run, last, 1, workers), want);
    }
  }
}

}  // namespace variator::cuda
