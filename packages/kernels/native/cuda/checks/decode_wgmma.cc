// decodeByWgmma against double precision: contexts around the borders of tiles, blocks and splits, drafts of several
// tokens, windows; that a row has the same bits alone and among others; and that the arrivals are zeros again.
#include "../decode_wgmma.h"

#include "attention_world.h"

namespace variator::cuda {
namespace {

std::vector<Bf16> decoded(CheckRun& run, const World& w, const DecodeVariant& variant) {
  int32_t mostTokens = 1;
  for (const Chunk& chunk : w.c.chunks) mostTokens = std::max(mostTokens, chunk.context + chunk.tokens);
  const auto keys = run.upload(w.keys), values = run.upload(w.values);
  UploadedWorld world(run, w, decodePairsPerItem(variant, w.c.headCount, w.c.kvHeadCount));
  AttentionArguments& a = world.arguments;
  const auto arrivals = run.upload(std::vector<uint32_t>(static_cast<size_t>(a.itemCount * a.kvHeadCount)));
  const auto partials = run.poisoned<float>(decodePartialCount(variant, a, mostTokens));
  a.kv = {keys.data(), values.data()};
  a.partials = partials.data();
  decodeByWgmma(variant, a, arrivals.data(), mostTokens, w.rowCount, w.blockCount, run.stream);
  for (const uint32_t left : run.download(arrivals)) run.same("decode arrivals", left, 0);
  return world.out();
}

}  // namespace

void checkDecodeWgmma(CheckRun& run) {
  const Case cases[] = {
      {8, 1, 64, 0, 128, {{0, 1}, {63, 1}, {300, 1}, {127, 3}}},
      {6, 2, 64, 90, 64, {{200, 1}, {150, 5}}},
      {4, 1, 128, 0, 64, {{255, 1}, {256, 1}, {130, 2}}},
      {14, 2, 128, 0, 192, {{190, 4}, {15, 1}}},
  };
  for (const Case& c : cases) {
    const World w = worldOf(run, c);
    for (const DecodeVariant& variant : decodeVariants()) {
      if (variant.headSize != c.headSize || decodePairsPerItem(variant, c.headCount, c.kvHeadCount) == 0) continue;
      const auto all = decoded(run, w, variant);
      checkValues(run, w, all);
      const int64_t width = int64_t{c.headCount} * c.headSize;
      for (size_t s = 0; s < c.chunks.size(); s++) {
        const std::vector<Bf16> want(all.begin() + (w.starts[s + 1] - 1) * width, all.begin() + w.starts[s + 1] * width);
        run.sameBytes("decode, a token alone and with drafts", decoded(run, partOf(w, s, c.chunks[s].tokens - 1), variant), want);
      }
    }
  }
}

}  // namespace variator::cuda
