// prefillByWgmma against double precision: chunks that begin and end anywhere in tiles and blocks, groups that fill an item
// and that do not, windows; and that a row has the same bits wherever its chunk began.
#include "../prefill_wgmma.h"

#include "attention_world.h"

namespace variator::cuda {
namespace {

std::vector<Bf16> prefilled(CheckRun& run, const World& w, const PrefillVariant& variant) {
  const auto keys = run.upload(w.keys), values = run.upload(w.values);
  UploadedWorld world(run, w, prefillPairsPerItem(w.c.headCount, w.c.kvHeadCount));
  world.arguments.kv = {keys.data(), values.data()};
  prefillByWgmma(variant, world.arguments, w.rowCount, w.blockCount, run.stream);
  return world.out();
}

}  // namespace

void checkPrefillWgmma(CheckRun& run) {
  const Case cases[] = {
      {4, 1, 64, 0, 0, {{0, 45}, {250, 37}, {800, 1}}},
      {3, 1, 64, 0, 0, {{120, 50}, {0, 1}}},
      {2, 2, 64, 140, 0, {{300, 140}}},
      {8, 2, 128, 0, 0, {{0, 33}, {900, 2}}},
      {1, 1, 128, 0, 0, {{130, 131}}},
  };
  for (const Case& c : cases) {
    const World w = worldOf(run, c);
    for (const PrefillVariant& variant : prefillVariants()) {
      if (variant.headSize != c.headSize) continue;
      const auto all = prefilled(run, w, variant);
      checkValues(run, w, all);
      const int64_t width = int64_t{c.headCount} * c.headSize;
      for (size_t s = 0; s < c.chunks.size(); s++) {
        const int32_t from = c.chunks[s].tokens * 2 / 3;
        const std::vector<Bf16> want(all.begin() + (w.starts[s] + from) * width, all.begin() + w.starts[s + 1] * width);
        run.sameBytes("prefill, a chunk that begins later", prefilled(run, partOf(w, s, from), variant), want);
      }
    }
  }
}

}  // namespace variator::cuda
