// The KV cache's change of format and back, block by block and many at once, over scattered blocks; and attention over keys and
// values in e4m3 against double precision, by every way to spread the work; and that appended rows are what was meant.
#include "../kv_cache.h"

#include <cmath>
#include <cstring>

#include "../float8_values.h"
#include "attention_world.h"

namespace variator::cuda {
namespace {

void checkConversion(CheckRun& run, int32_t layers, int32_t kvHeads, int32_t headSize, int32_t blockCount, const std::vector<int32_t>& kept, int64_t scratchBytes) {
  Random random(run.seed + static_cast<uint64_t>(headSize));
  DeviceModel model{};
  model.layerCount = layers;
  model.kvHeadCount = kvHeads;
  model.headSize = headSize;
  KvCache cache(model, blockCount, KvFormat::Bf16);
  const int64_t rows = int64_t{kvHeads} * kvBlockTokens, size = blockCount * rows * headSize;
  run.same("more blocks fit", cache.blockCountIn(KvFormat::Fp8) >= blockCount * 2 * headSize / (headSize + 4), 1);
  std::vector<std::vector<Bf16>> before;
  for (int32_t region = 0; region < 2 * layers; region++) {
    const KvLayer layer = cache.layer(region / 2, KvFormat::Bf16);
    before.push_back(random.bf16s(size, 3));
    copyToDevice(region % 2 == 0 ? layer.keys : layer.values, before.back().data(), size * 2, run.stream);
    wait(run.stream);
  }
  cache.convert(KvFormat::Fp8, kept, run.stream, scratchBytes);
  const int64_t blockBytes = fp8KvBlockBytes(kvHeads, headSize);
  std::vector<std::vector<float>> rounded(before.size());  // [kept, rows, headSize]
  for (int32_t region = 0; region < 2 * layers; region++) {
    const KvLayer layer = cache.layer(region / 2, KvFormat::Fp8);
    for (const int32_t block : kept) {
      std::vector<uint8_t> bytes(static_cast<size_t>(blockBytes));
      copyToHost(bytes.data(), (region % 2 == 0 ? layer.fp8Keys : layer.fp8Values) + block * blockBytes, blockBytes, run.stream);
      wait(run.stream);
      for (int64_t row = 0; row < rows; row++) {
        float scale, most = 0;
        std::memcpy(&scale, bytes.data() + rows * headSize + row * 4, 4);
        for (int32_t d = 0; d < headSize; d++) {
          const float want = toFloat(before[region][(block * rows + row) * headSize + d]);
          const float got = fromE4m3(bytes[row * headSize + (region % 2 == 0 ? fp8KeyPlace(d) : fp8ValuePlace(d))]) * scale;
          most = std::max(most, std::abs(want));
          run.near("a row in e4m3", got, want, 1.0 / 16, scale * 0x1p-10);
          rounded[region].push_back(got);
        }
        run.near("its scale", scale, most / 448, 1e-6, 0);
      }
    }
  }
  cache.convert(KvFormat::Bf16, kept, run.stream, scratchBytes);
  for (int32_t region = 0; region < 2 * layers; region++) {
    const KvLayer layer = cache.layer(region / 2, KvFormat::Bf16);
    std::vector<Bf16> after(static_cast<size_t>(size)), got, want;
    copyToHost(after.data(), region % 2 == 0 ? layer.keys : layer.values, size * 2, run.stream);
    wait(run.stream);
    for (const int32_t block : kept) got.insert(got.end(), after.begin() + block * rows * headSize, after.begin() + (block + 1) * rows * headSize);
    for (const float one : rounded[region]) want.push_back(toBf16(one));
    run.sameBytes("back in bf16", got, want);
  }
}

struct Fp8Bytes {
  std::vector<uint8_t> keys, values;
};

// Rounds a world's keys and values to e4m3 under scales that are powers of two, so that bf16 holds them, too. What nothing was
// written to keeps codes and scales that are no numbers.
Fp8Bytes roundedToFp8(CheckRun& run, World& w) {
  Random random(run.seed + 77);
  const Case& c = w.c;
  const int64_t rows = int64_t{c.kvHeadCount} * kvBlockTokens, blockBytes = fp8KvBlockBytes(c.kvHeadCount, c.headSize);
  Fp8Bytes bytes;
  for (auto* all : {&bytes.keys, &bytes.values}) {
    const bool isValues = all == &bytes.values;
    all->assign(static_cast<size_t>(w.blockCount * blockBytes), 0xff);
    for (int64_t row = 0; row < w.blockCount * rows; row++) {
      Bf16* from = (isValues ? w.values : w.keys).data() + row * c.headSize;
      if (from[0].bits == 0xffff) continue;
      const float scale = std::ldexp(1.0f, -4 - static_cast<int>(random.below(4)));
      uint8_t* block = all->data() + row / rows * blockBytes;
      std::memcpy(block + rows * c.headSize + row % rows * 4, &scale, 4);
      for (int32_t d = 0; d < c.headSize; d++) {
        const uint8_t code = toE4m3(toFloat(from[d]) / scale);
        block[row % rows * c.headSize + (isValues ? fp8ValuePlace(d) : fp8KeyPlace(d))] = code;
        from[d] = toBf16(fromE4m3(code) * scale);
      }
    }
  }
  return bytes;
}

std::vector<Bf16> attended(CheckRun& run, const World& w, const Fp8Bytes& bytes, int32_t rowTiles, int32_t splitWorkers) {
  const auto keys = run.upload(bytes.keys), values = run.upload(bytes.values);
  return attended(run, w, {nullptr, nullptr, keys.data(), values.data()}, rowTiles, splitWorkers);
}

void checkFp8Attention(CheckRun& run) {
  const Case cases[] = {
      {6, 2, 16, 0, 64, {{0, 1}, {63, 1}, {0, 33}, {150, 6}}},
      {2, 2, 32, 0, 128, {{0, 70}, {130, 1}, {255, 3}}},
      {8, 1, 64, 20, 64, {{100, 3}, {7, 1}, {0, 30}}},
      {3, 1, 96, 0, 64, {{65, 2}}},
      {4, 2, 128, 70, 128, {{129, 9}, {200, 1}}},
  };
  for (const Case& c : cases) {
    World w = worldOf(run, c);
    const Fp8Bytes bytes = roundedToFp8(run, w);
    const auto all = attended(run, w, bytes, 1, 0);
    checkValues(run, w, all);
    for (const int32_t rowTiles : {2, 4}) run.sameBytes("fp8: row tiles of " + std::to_string(rowTiles), attended(run, w, bytes, rowTiles, 0), all);
    const int64_t width = int64_t{c.headCount} * c.headSize;
    for (size_t s = 0; s < c.chunks.size(); s++) {
      const World last = partOf(w, s, c.chunks[s].tokens - 1);
      const std::vector<Bf16> want(all.begin() + (w.starts[s + 1] - 1) * width, all.begin() + w.starts[s + 1] * width);
      run.sameBytes("fp8: a token alone and in its chunk", attended(run, last, bytes, 1, 0), want);
      for (const int32_t workers : {2, 5}) run.sameBytes("fp8: a token by splits and in its chunk", attended(run, last, bytes, 1, workers), want);
    }
  }
}

// The same rows appended in bf16 and in e4m3: near each other, whatever turns and norms they went through.
void checkAppend(CheckRun& run, int32_t headCount, int32_t kvHeadCount, int32_t headSize, int32_t isInterleaved) {
  Random random(run.seed + 5);
  const int32_t tokenCount = 4, half = headSize / 2, blockCount = 3, width = (headCount + 2 * kvHeadCount) * headSize;
  const int64_t rows = int64_t{kvHeadCount} * kvBlockTokens, blockBytes = fp8KvBlockBytes(kvHeadCount, headSize);
  const auto qkv = random.bf16s(int64_t{tokenCount} * width);
  const auto cosines = run.upload(random.normals(tokenCount * half)), sines = run.upload(random.normals(tokenCount * half));
  const auto bias = run.upload(random.normals(width)), norm = run.upload(random.normals(headSize));
  const std::vector<int32_t> slots = {33, 2, -1, 17};
  const auto slotArray = run.upload(slots);
  const auto keys = run.poisoned<Bf16>(blockCount * rows * headSize), values = run.poisoned<Bf16>(blockCount * rows * headSize);
  const auto fp8Keys = run.poisoned<uint8_t>(blockCount * blockBytes), fp8Values = run.poisoned<uint8_t>(blockCount * blockBytes);
  std::vector<Bf16> rotated[2];
  for (const bool isFp8 : {false, true}) {
    const auto qkvArray = run.upload(qkv);
    const KvLayer layer = isFp8 ? KvLayer{nullptr, nullptr, fp8Keys.data(), fp8Values.data()} : KvLayer{keys.data(), values.data()};
    rotateAndAppend({qkvArray.data(), bias.data(), norm.data(), norm.data(), cosines.data(), sines.data(), slotArray.data(), layer, tokenCount, headCount,
                     kvHeadCount, headSize, isInterleaved, 1e-6f},
                    run.stream);
    rotated[isFp8 ? 1 : 0] = run.download(qkvArray);
  }
  run.sameBytes("queries", rotated[1], rotated[0]);
  for (const bool isValues : {false, true}) {
    const auto want = run.download(isValues ? values : keys);
    const auto got = run.download(isValues ? fp8Values : fp8Keys);
    // No number has the code 0xff.
    int64_t untouched = 0;
    for (size_t i = 0; i < got.size(); i++) untouched += static_cast<int64_t>(i) % blockBytes < rows * headSize && got[i] == 0xff ? 1 : 0;
    run.same("codes left alone", untouched, (blockCount * kvBlockTokens - 3) * int64_t{kvHeadCount} * headSize);
    for (const int32_t slot : slots) {
      if (slot < 0) continue;
      for (int32_t head = 0; head < kvHeadCount; head++) {
        const int64_t row = head * kvBlockTokens + slot % kvBlockTokens;
        const uint8_t* block = got.data() + slot / kvBlockTokens * blockBytes;
        float scale;
        std::memcpy(&scale, block + rows * headSize + row * 4, 4);
        for (int32_t d = 0; d < headSize; d++) {
          const float value = fromE4m3(block[row * headSize + (isValues ? fp8ValuePlace(d) : fp8KeyPlace(d))]) * scale;
          run.near("an appended row", value, toFloat(want[(slot / kvBlockTokens * rows + row) * headSize + d]), 1.0 / 15, scale * 0x1p-10);
        }
      }
    }
  }
}

}  // namespace

void checkKvCache(CheckRun& run) {
  checkConversion(run, 1, 1, 16, 5, {0, 3}, 1 << 20);
  checkConversion(run, 2, 3, 32, 9, {0, 1, 2, 4, 7, 8}, 2 * fp8KvBlockBytes(3, 32) + 5);
  checkConversion(run, 1, 2, 128, 6, {1, 2, 3, 4, 5}, 1);
  checkConversion(run, 1, 2, 96, 4, {}, 1);
  checkFp8Attention(run);
  checkAppend(run, 3, 2, 32, 0);
  checkAppend(run, 2, 1, 128, 1);
  checkAppend(run, 6, 2, 16, 0);
}

}  // namespace variator::cuda
