// decodeByWgmma against double precision: contexts around the borders of tiles, blocks and splits, drafts of several
// tokens, windows; that a row has the same bits alone and among others; and that the arrivals are zeros again.
#include "../decode_wgmma.h"

#include "attention_world.h"

namespace variator::cuda {
namespace {

std::vector<Bf16> decoded(CheckRun& run, const World& w, const DecodeVariant& variant) {
  const Case& c = w.c;
  const int32_t group = c.headCount / c.kvHeadCount, perItem = decodePairsPerItem(variant, c.headCount, c.kvHeadCount);
  std::vector<int32_t> sequences{-1}, pairs{0};
  int32_t mostTokens = 1;
  for (size_t s = 0; s < c.chunks.size(); s++) {
    mostTokens = std::max(mostTokens, c.chunks[s].context + c.chunks[s].tokens);
    for (int32_t pair = 0; pair < c.chunks[s].tokens * group; pair += perItem) {
      sequences.push_back(static_cast<int32_t>(s));
      pairs.push_back(pair);
    }
  }
  const auto queries = run.upload(w.queries), keys = run.upload(w.keys), values = run.upload(w.values);
  const auto tables = run.upload(w.tables), starts = run.upload(w.starts), contexts = run.upload(w.contexts);
  const auto sequenceArray = run.upload(sequences), pairArray = run.upload(pairs);
  const auto arrivals = run.upload(std::vector<uint32_t>(sequences.size() * static_cast<size_t>(c.kvHeadCount)));
  const auto out = run.poisoned<Bf16>(int64_t{w.rowCount} * c.headCount * c.headSize);
  AttentionArguments a{};
  a.queries = queries.data();
  a.queryStride = c.headCount * c.headSize;
  a.kv = {keys.data(), values.data()};
  a.blockTables = tables.data();
  a.blockTableStride = w.stride;
  a.tokenStarts = starts.data();
  a.contextLengths = contexts.data();
  a.itemSequences = sequenceArray.data();
  a.itemFirstPairs = pairArray.data();
  a.itemCount = static_cast<int32_t>(sequences.size());
  a.out = out.data();
  a.headCount = c.headCount;
  a.kvHeadCount = c.kvHeadCount;
  a.headSize = c.headSize;
  a.windowTokens = c.window;
  a.splitTokens = c.splitTokens;
  a.scale = 1 / std::sqrt(static_cast<float>(c.headSize));
  const auto partials = run.poisoned<float>(decodePartialCount(variant, a, mostTokens));
  a.partials = partials.data();
  decodeByWgmma(variant, a, arrivals.data(), mostTokens, w.rowCount, w.blockCount, run.stream);
  for (const uint32_t left : run.download(arrivals)) run.same("decode arrivals", left, 0);
  return run.download(out);
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
