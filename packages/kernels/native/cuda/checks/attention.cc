// attend against double precision: ragged sequences in scattered blocks, groups, windows, all head sizes; and that every way
// to spread the work (row tiles, splits over blocks, alone or in a crowd, chunk by chunk) gives the same bits.
#include "../attention.h"

#include <cmath>

#include "attention_world.h"

namespace variator::cuda {
namespace {

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
