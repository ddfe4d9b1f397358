// mlaDecodeByWgmma against double precision: counts around the borders of tiles, blocks and splits, heads that do not fill
// a block's 64, a sequence with nothing; that a row has the same bits alone; and that the arrivals are zeros again.
#include "../mla_wgmma.h"

#include <algorithm>
#include <cmath>

#include "../elementwise.h"
#include "checks.h"

namespace variator::cuda {
namespace {

struct Latents {
  int32_t heads, stride, blockCount;
  std::vector<int32_t> counts, tables;
  std::vector<Bf16> queries, latents;
};

constexpr float scale = 0.07f;

std::vector<Bf16> attended(CheckRun& run, const Latents& w, const std::vector<int32_t>& sequences, int32_t splitTokens) {
  std::vector<int32_t> counts, tables;
  std::vector<Bf16> rows;
  for (const int32_t s : sequences) {
    counts.push_back(w.counts[s]);
    tables.insert(tables.end(), w.tables.begin() + s * w.stride, w.tables.begin() + (s + 1) * w.stride);
    rows.insert(rows.end(), w.queries.begin() + int64_t{s} * w.heads * mlaRowSize, w.queries.begin() + int64_t{s + 1} * w.heads * mlaRowSize);
  }
  const auto queries = run.upload(rows), latents = run.upload(w.latents);
  const auto tableArray = run.upload(tables), countArray = run.upload(counts);
  const auto count = static_cast<int32_t>(sequences.size());
  const auto out = run.poisoned<Bf16>(int64_t{count} * w.heads * mlaLatentSize);
  const auto arrivals = run.upload(std::vector<uint32_t>(static_cast<size_t>(count * ceilDivide(w.heads, mlaHeadsPerBlock))));
  MlaArguments a{queries.data(), latents.data(), tableArray.data(), w.stride, countArray.data(), out.data(), count, w.heads, w.blockCount, splitTokens,
                 *std::max_element(counts.begin(), counts.end()), scale, nullptr, arrivals.data()};
  const auto partials = run.poisoned<float>(mlaPartialCount(a));
  a.partials = partials.data();
  mlaDecodeByWgmma(a, run.stream);
  for (const uint32_t left : run.download(arrivals)) run.same("latent attention's arrivals", left, 0);
  return run.download(out);
}

}  // namespace

void checkMlaWgmma(CheckRun& run) {
  Random random(run.seed + 5);
  Latents w{70, 11, 0, {1, 0, 63, 130, 161}, {}, {}, {}};
  const auto count = static_cast<int32_t>(w.counts.size());
  w.blockCount = w.stride * count + 2;
  w.latents.assign(static_cast<size_t>(w.blockCount) * kvBlockTokens * mlaRowSize, Bf16{0xffff});
  // Every seventh block is somebody's next: scattered, each used once.
  for (int32_t i = 0; i < w.stride * count; i++) w.tables.push_back(i * 7 % w.blockCount);
  w.queries = random.bf16s(int64_t{count} * w.heads * mlaRowSize);
  for (int32_t s = 0; s < count; s++) {
    for (int32_t token = 0; token < w.counts[s]; token++) {
      const int64_t row = int64_t{w.tables[s * w.stride + token / kvBlockTokens]} * kvBlockTokens + token % kvBlockTokens;
      for (int32_t d = 0; d < mlaRowSize; d++) w.latents[row * mlaRowSize + d] = toBf16(random.normal());
    }
  }
  const auto all = attended(run, w, {0, 1, 2, 3, 4}, 64);
  const int64_t width = int64_t{w.heads} * mlaLatentSize;
  for (int32_t s = 0; s < count; s++) {
    const auto rowOf = [&](int32_t token) {
      return w.latents.data() + (int64_t{w.tables[s * w.stride + token / kvBlockTokens]} * kvBlockTokens + token % kvBlockTokens) * mlaRowSize;
    };
    for (int32_t head = 0; head < w.heads; head++) {
      const Bf16* query = w.queries.data() + (int64_t{s} * w.heads + head) * mlaRowSize;
      std::vector<double> weights;
      double most = -1e30, total = 0;
      for (int32_t token = 0; token < w.counts[s]; token++) {
        double dot = 0;
        for (int32_t d = 0; d < mlaRowSize; d++) dot += static_cast<double>(toFloat(query[d])) * toFloat(rowOf(token)[d]);
        weights.push_back(dot * scale);
        most = std::max(most, weights.back());
      }
      for (double& weight : weights) total += weight = std::exp(weight - most);
      for (int32_t d = 0; d < mlaLatentSize; d++) {
        const Bf16 got = all[s * width + int64_t{head} * mlaLatentSize + d];
        if (w.counts[s] == 0) {
          run.same("latent attention to nothing", got.bits, 0xffff);
          continue;
        }
        double want = 0, size = 0;
        for (int32_t token = 0; token < w.counts[s]; token++) {
          const double term = weights[token] / total * toFloat(rowOf(token)[d]);
          want += term;
          size += std::abs(term);
        }
        run.near("latent attention", toFloat(got), want, 0.004, 0.004 * size);
      }
    }
  }
  for (const int32_t s : {0, 3}) {
    run.sameBytes("latent attention of one sequence", attended(run, w, {s}, 64), std::vector<Bf16>(all.begin() + s * width, all.begin() + (s + 1) * width));
  }
}

}  // namespace variator::cuda
