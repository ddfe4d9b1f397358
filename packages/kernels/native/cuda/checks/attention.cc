// attend against double precision: ragged sequences in scattered blocks, groups, windows, all head sizes; and that every way
// to spread the work (row tiles, splits over blocks, alone or in a crowd, chunk by chunk) gives the same bits.
#include "attention_world.h"

namespace variator::cuda {
namespace {

std::vector<Bf16> attended(CheckRun& run, const World& w, int32_t rowTiles, int32_t splitWorkers) {
  const auto keys = run.upload(w.keys), values = run.upload(w.values);
  return attended(run, w, {keys.data(), values.data()}, rowTiles, splitWorkers);
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
