// See sample.h. One block a row. Where top-k or top-p ask for an order, tokens are not sorted: a place in the order (likelier
// first, then the lower id) is found by four histograms over the bytes of the logit, each of counts or of masses.
#include "sample.h"

#include <cmath>

#include "../native_fault.h"
#include "block_sums.cuh"

namespace variator::cuda {
namespace {

constexpr int mostThreads = 1024;
constexpr float massUnit = 17592186044416.0f;  // 2^44

struct Shared {
  uint64_t bins[256];
  uint64_t starts[mostThreads + 1];
  uint64_t spare64[32];
  float spare[32];
  uint64_t found;      // what one thread tells all
  uint64_t before;
};

// Rises with the number; -0 counts as 0.
DEVICE uint32_t keyOf(float logit) {
  const uint32_t bits = bitsOf(addRounded(logit, 0.0f));
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

DEVICE uint64_t mixBits(uint64_t bits) {
  bits += 0x9e3779b97f4a7c15ull;
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9ull;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebull;
  return bits ^ (bits >> 31);
}

// ../lanes.h's exponential, operation for operation.
DEVICE float exponential(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float power = addRounded(addRounded(multiplyRounded(x, 1.44269504088896341f), 12582912.0f), -12582912.0f);
  const float rest = addRounded(addRounded(x, -multiplyRounded(power, 0.693359375f)), -multiplyRounded(power, -2.12194440e-4f));
  float value = 1.9875691500e-4f;
  value = addRounded(multiplyRounded(value, rest), 1.3981999507e-3f);
  value = addRounded(multiplyRounded(value, rest), 8.3334519073e-3f);
  value = addRounded(multiplyRounded(value, rest), 4.1665795894e-2f);
  value = addRounded(multiplyRounded(value, rest), 1.6666665459e-1f);
  value = addRounded(multiplyRounded(value, rest), 5.0000001201e-1f);
  value = addRounded(addRounded(multiplyRounded(multiplyRounded(value, rest), rest), rest), 1.0f);
  return multiplyRounded(value, floatOfBits(static_cast<uint32_t>(static_cast<int32_t>(power) + 127) << 23));
}

struct Row {
  const float* logits;
  int32_t size;
  float most, factor, minP;
  Shared* shared;

  DEVICE uint64_t massOf(float logit) const {
    const float weight = exponential(multiplyRounded(addRounded(logit, -most), factor));
    return weight < minP ? 0 : static_cast<uint64_t>(multiplyRounded(weight, massUnit));
  }
  // Each thread's tokens, end to end.
  DEVICE int32_t begin() const { return min32(static_cast<int32_t>(thread()) * perThread(), size); }
  DEVICE int32_t end() const { return min32((static_cast<int32_t>(thread()) + 1) * perThread(), size); }
  DEVICE int32_t perThread() const { return (size + static_cast<int32_t>(threadCount()) - 1) / static_cast<int32_t>(threadCount()); }
  DEVICE static int32_t min32(int32_t a, int32_t b) { return a < b ? a : b; }

  // The first token, by id, at which the running sum of measure(token) reaches `need` (1 or more, within the total).
  template <typename Measure>
  DEVICE int32_t firstById(uint64_t need, const Measure& measure) const {
    uint64_t own = 0;
    for (int32_t i = begin(); i < end(); i++) own += measure(i);
    syncThreads();
    shared->starts[thread()] = own;
    syncThreads();
    if (warp() == 0) {
      // Each lane's part of the threads, then lanes by shuffles.
      const uint32_t part = threadCount() / 32, from = lane() * part;
      uint64_t sum = 0;
      for (uint32_t i = 0; i < part; i++) sum += shared->starts[from + i];
      uint64_t until = sum;
      for (uint32_t delta = 1; delta < 32; delta *= 2) {
        const uint64_t below = shuffleUp(until, delta);
        if (lane() >= delta) until += below;
      }
      uint64_t start = until - sum;
      for (uint32_t i = 0; i < part; i++) {
        const uint64_t size = shared->starts[from + i];
        shared->starts[from + i] = start;
        start += size;
      }
    }
    syncThreads();
    uint64_t sum = shared->starts[thread()];
    if (sum < need && sum + own >= need) {
      int32_t token = begin();
      for (sum += measure(token); sum < need; sum += measure(token)) token++;
      shared->found = static_cast<uint64_t>(token);
    }
    syncThreads();
    const auto found = static_cast<int32_t>(shared->found);
    syncThreads();
    return found;
  }

  // The place in the order at which the running sum reaches `need`; `sum` becomes the sum up to and with it.
  template <bool isMass>
  DEVICE void place(uint64_t need, uint32_t& key, int32_t& token, uint64_t& sum) const {
    uint32_t prefix = 0;
    uint64_t before = 0;  // of the keys above
#pragma unroll 1
    for (int shift = 24; shift >= 0; shift -= 8) {
      for (uint32_t i = thread(); i < 256; i += threadCount()) shared->bins[i] = 0;
      syncThreads();
      // Neighbours often share a bin: one addition for a run of them.
      uint32_t bin = 256;
      uint64_t run = 0;
      for (auto i = static_cast<int32_t>(thread()); i < size; i += static_cast<int32_t>(threadCount())) {
        const uint32_t own = keyOf(logits[i]);
        if (shift < 24 && own >> (shift + 8) != prefix >> (shift + 8)) continue;
        const uint32_t next = own >> shift & 255;
        if (next != bin) {
          if (run > 0) atomicAddTo(&shared->bins[bin], run);
          bin = next;
          run = 0;
        }
        run += isMass ? massOf(logits[i]) : 1;
      }
      if (run > 0) atomicAddTo(&shared->bins[bin], run);
      syncThreads();
      if (warp() == 0) {
        // Lanes take eight bins each, the highest first.
        const uint32_t first = 255 - 8 * lane();
        uint64_t own = 0;
        for (uint32_t i = 0; i < 8; i++) own += shared->bins[first - i];
        uint64_t until = own;
        for (uint32_t delta = 1; delta < 32; delta *= 2) {
          const uint64_t above = shuffleUp(until, delta);
          if (lane() >= delta) until += above;
        }
        uint64_t at = before + until - own;
        if (at < need && at + own >= need) {
          uint32_t digit = first;
          while (at + shared->bins[digit] < need) at += shared->bins[digit--];
          shared->found = digit;
          shared->before = at;
        }
      }
      syncThreads();
      prefix |= static_cast<uint32_t>(shared->found) << shift;
      before = shared->before;
      syncThreads();
    }
    key = prefix;
    // Equal logits have equal measures.
    const uint32_t bits = prefix & 0x80000000u ? prefix & 0x7fffffffu : ~prefix;
    const uint64_t each = isMass ? massOf(floatOfBits(bits)) : 1;
    const uint64_t rank = (need - before + each - 1) / each;
    sum = before + rank * each;
    const uint32_t wanted = prefix;
    token = firstById(rank, [&](int32_t i) { return keyOf(logits[i]) == wanted ? uint64_t{1} : uint64_t{0}; });
  }
};

KERNEL(mostThreads) void sampleRow(const SampleArguments a) {
  const uint32_t index = blockIndex().x;
  Row row;
  row.logits = a.logits + static_cast<int64_t>(index) * a.vocabularySize;
  row.size = a.vocabularySize;
  row.shared = reinterpret_cast<Shared*>(sharedMemory());
  Shared& shared = *row.shared;

  float most = -INFINITY;
  uint32_t brokenCount = 0;
  for (auto i = static_cast<int32_t>(thread()); i < a.vocabularySize; i += static_cast<int32_t>(threadCount())) {
    const float logit = row.logits[i];
    if (!(logit < INFINITY)) brokenCount++;
    most = logit > most ? logit : most;
  }
  most = blockMost(most, shared.spare);
  const uint64_t broken = blockSum(static_cast<uint64_t>(brokenCount), shared.spare64);
  if (broken > 0 || most == -INFINITY) {
    if (thread() == 0) a.out[index] = -1;
    return;
  }
  row.most = most;
  const float temperature = a.temperatures[index];
  if (temperature <= 0) {
    const int32_t token = row.firstById(1, [&](int32_t i) { return row.logits[i] == most ? uint64_t{1} : uint64_t{0}; });
    if (thread() == 0) a.out[index] = token;
    return;
  }
  const float factor = 1.0f / temperature;
  row.factor = factor < 1e30f ? factor : 1e30f;
  row.minP = a.minPs[index];
  const uint64_t seed = static_cast<uint64_t>(a.seeds[2 * index]) | static_cast<uint64_t>(a.seeds[2 * index + 1]) << 32;
  const double share = static_cast<double>(mixBits(mixBits(seed) ^ static_cast<uint64_t>(static_cast<int64_t>(a.positions[index]))) >> 11) * 0x1.0p-53;
  const auto drawn = [&](uint64_t total) {
    const auto need = static_cast<uint64_t>(share * static_cast<double>(total)) + 1;
    return need < total ? need : total;
  };
  uint64_t total = 0;
  const int32_t topK = a.topKs[index];
  const float topP = a.topPs[index];
  const bool isTopKOn = topK > 0 && topK < a.vocabularySize;
  uint32_t key = 0;
  int32_t token = a.vocabularySize;
  if (isTopKOn) {
    uint64_t count;
    row.place<false>(static_cast<uint64_t>(topK), key, token, count);
  }
  uint64_t own = 0;
  for (auto i = static_cast<int32_t>(thread()); i < a.vocabularySize; i += static_cast<int32_t>(threadCount())) {
    const uint32_t ownKey = keyOf(row.logits[i]);
    if (!isTopKOn || ownKey > key || (ownKey == key && i <= token)) own += row.massOf(row.logits[i]);
  }
  total = blockSum(own, shared.spare64);
  if (!isTopKOn && topP >= 1) {
    token = row.firstById(drawn(total), [&](int32_t i) { return row.massOf(row.logits[i]); });
  } else {
    if (topP < 1) {
      const double wanted = static_cast<double>(topP) * static_cast<double>(total);
      auto need = static_cast<uint64_t>(wanted);
      if (static_cast<double>(need) < wanted) need++;
      if (need < 1) need = 1;
      row.place<true>(need < total ? need : total, key, token, total);
    }
    uint64_t sum;
    row.place<true>(drawn(total), key, token, sum);
  }
  if (thread() == 0) a.out[index] = token;
}

}  // namespace

void sample(const SampleArguments& arguments, Stream stream) {
  if (arguments.vocabularySize > 1 << 19) throw NativeFault("sample: the vocabulary is larger than 524288");
  // As many threads as there is work for; no bit depends on it.
  uint32_t threads = 64;
  while (threads < mostThreads && threads * 16 < static_cast<uint32_t>(arguments.vocabularySize)) threads *= 2;
  launch("sample", sampleRow, {{static_cast<uint32_t>(arguments.rowCount)}, {threads}, sizeof(Shared)}, stream, arguments);
}

}  // namespace variator::cuda
