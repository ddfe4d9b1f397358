// decodeByWgmma against double precision: contexts around the borders of tiles, blocks and splits, drafts of several
// tokens, windows; that a row has the same bits alone and among others and by whatever number of blocks; and that the arrivals are
// zeros again.
#include "../decode_wgmma.h"

#include "attention_world.h"

namespace variator::cuda {
namespace {

// splitWorkers 0: with room for the longest context in every item; else packed, which takes one token a sequence.
std::vector<Bf16> decoded(CheckRun& run, const World& w, const DecodeVariant& variant, int32_t splitWorkers = 0) {
  int32_t mostTokens = 1;
  for (const Chunk& chunk : w.c.chunks) mostTokens = std::max(mostTokens, chunk.context + chunk.tokens);
  const auto keys = run.upload(w.keys), values = run.upload(w.values);
  UploadedWorld world(run, w, decodePairsPerItem(variant, w.c.headCount, w.c.kvHeadCount));
  AttentionArguments& a = world.arguments;
  const auto arrivals = run.upload(std::vector<uint32_t>(static_cast<size_t>(a.itemCount * a.kvHeadCount)));
  std::vector<int32_t> firstSplits;
  int32_t splitCount = 0;
  for (const Chunk& chunk : w.c.chunks) {
    firstSplits.push_back(splitCount);
    splitCount += chunk.context / w.c.splitTokens + 1;
  }
  const auto partialStarts = run.upload(firstSplits);
  const auto partials = run.poisoned<float>(splitWorkers == 0 ? decodePartialCount(variant, a, mostTokens) : splitCount * w.c.kvHeadCount * decodePartStride(variant));
  if (splitWorkers > 0) a.partialStarts = partialStarts.data();
  a.splitWorkers = splitWorkers;
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
      {4, 2, 64, 0, 64, {{700, 1}, {63, 1}, {0, 1}, {64, 1}}},
  };
  for (const Case& c : cases) {
    const World w = worldOf(run, c);
    for (const DecodeVariant& variant : decodeVariants()) {
      if (variant.headSize != c.headSize || decodePairsPerItem(variant, c.headCount, c.kvHeadCount) == 0) continue;
      const auto all = decoded(run, w, variant);
      checkValues(run, w, all);
      const bool isPlain = std::all_of(c.chunks.begin(), c.chunks.end(), [](const Chunk& chunk) { return chunk.tokens == 1; });
      if (isPlain) {
        for (const int32_t workers : {1, 3}) run.sameBytes("decode, many tokens by few blocks", decoded(run, w, variant, workers), all);
      }
      const int64_t width = int64_t{c.headCount} * c.headSize;
      for (size_t s = 0; s < c.chunks.size(); s++) {
        const std::vector<Bf16> want(all.begin() + (w.starts[s + 1] - 1) * width, all.begin() + w.starts[s + 1] * width);
        const World last = partOf(w, s, c.chunks[s].tokens - 1);
        run.sameBytes("decode, a token alone and with drafts", decoded(run, last, variant), want);
        for (const int32_t workers : {1, 2, 9}) run.sameBytes("decode, a token by few blocks", decoded(run, last, variant, workers), want);
      }
    }
  }
}

}  // namespace variator::cuda
