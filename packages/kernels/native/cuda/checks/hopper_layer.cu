// The words of hopper_*.h themselves: every shape and layout of wgmma that kernels use, fed by TMA, against plain sums; and,
// on the emulated device, that each mistake a GPU would punish (often in silence) ends the launch with a message.
#include <cmath>

#include "../../native_fault.h"
#include "../hopper_tma.h"
#include "../hopper_wgmma.h"
#include "checks.h"
#include "../float8_values.h"

namespace variator::cuda {
namespace {

using namespace hopper;

constexpr int rows = 64, warpgroupThreads = 128;

// What the kernel does wrong, if anything.
enum class Mistake { none, noBarrierWait, tooFewBytes, tooManyBytes, noFence, noWgmmaWait, unevenStart, overwritesOperand, noProxyFence, barrierTwice };

struct TileArguments {
  TensorMap a, b;
  float* out;  // [64, n]
  int depthTiles;
  Mistake mistake;
};

template <int n>
DEVICE void storeAccumulators(float* out, const float (&d)[n / 2]) {
  const int t = static_cast<int>(thread());
  for (int i = 0; i < n / 2; i++) out[accumulatorRow(t, i / 2 % 2 != 0) * n + accumulatorColumn(t, i / 4) + i % 2] = d[i];
}

/** D = A B over depthTiles x 64 of K, one warpgroup, one stage: A by TMA from rows of K (or of M), B likewise. */
template <int n, Major majorA, Major majorB>
KERNEL(warpgroupThreads) void tileBf16(const GRID_CONSTANT TileArguments a) {
  constexpr int aBytes = 64 * 128, bRows = n < 64 ? n : 64, bBytes = n * 128;
  uint8_t* shared = sharedMemory();
  uint8_t *tileA = shared, *tileB = shared + aBytes;
  auto* barrier = reinterpret_cast<Barrier*>(tileB + (bBytes + 1023) / 1024 * 1024);
  if (thread() == 0) {
    barrierInit(barrier, 1);
    fenceBarrierInit();
  }
  syncThreads();
  float d[n / 2];
  for (int i = 0; i < n / 2; i++) d[i] = 0;
  for (int tile = 0; tile < a.depthTiles; tile++) {
    if (thread() == 0) {
      const int wrong = a.mistake == Mistake::tooFewBytes ? -16 : a.mistake == Mistake::tooManyBytes ? 16 : 0;
      barrierArriveExpect(barrier, static_cast<uint32_t>(aBytes + bBytes + wrong));
      if (a.mistake == Mistake::barrierTwice) barrierArrive(barrier);
      if (majorA == Major::k) {
        loadBox(tileA, &a.a, barrier, 64 * tile, 0);
      } else {
        loadBox(tileA, &a.a, barrier, 0, 64 * tile);
      }
      if (majorB == Major::k) {
        for (int row = 0; row < n; row += bRows) loadBox(tileB + row * 128, &a.b, barrier, 64 * tile, row);
      } else {
        for (int column = 0; column < n; column += 64) loadBox(tileB + column * 128, &a.b, barrier, column, 64 * tile);
      }
    }
    if (a.mistake != Mistake::noBarrierWait) barrierWait(barrier, static_cast<uint32_t>(tile & 1));
    const uint32_t startA = sharedAddress(tileA) + (a.mistake == Mistake::unevenStart ? 128 : 0), startB = sharedAddress(tileB);
    if (a.mistake != Mistake::noFence) wgmmaFence();
    for (int k = 0; k < 4; k++) {
      const uint64_t descA = majorA == Major::k ? describeKMajor(startA + 32 * k) : describeMnMajor(startA + 2048 * k, 8192);
      const uint64_t descB = majorB == Major::k ? describeKMajor(startB + 32 * k) : describeMnMajor(startB + 2048 * k, 8192);
      wgmmaBf16<n, majorA, majorB>(d, descA, descB, true);
    }
    wgmmaCommit();
    if (a.mistake == Mistake::overwritesOperand && thread() == 0) {
      barrierArriveExpect(barrier, aBytes);
      loadBox(tileA, &a.a, barrier, 0, 0);
    }
    if (a.mistake != Mistake::noWgmmaWait) wgmmaWait<0>();
    syncThreads();
  }
  storeAccumulators<n>(a.out, d);
}

/** The same with A in registers, taken from global memory as the fragment layout says, and B of n x 64 written by threads. */
template <int n>
KERNEL(warpgroupThreads) void tileRegisters(const Bf16* a, const Bf16* b, float* out, Mistake mistake) {
  uint8_t* tileB = sharedMemory();
  const int t = static_cast<int>(thread());
  for (int unit = t; unit < n * 8; unit += warpgroupThreads) {
    const auto offset = swizzledOffset(static_cast<uint32_t>(unit / 8), static_cast<uint32_t>(unit % 8 * 16));
    store16(tileB + offset, load16(b + unit * 8));
  }
  if (mistake != Mistake::noProxyFence) fenceAsyncProxy(tileB, n * 128);
  syncThreads();
  uint32_t fragments[4][4];
  for (int k = 0; k < 4; k++) {
    for (int r = 0; r < 4; r++) {
      const Bf16* from = a + accumulatorRow(t, r % 2 != 0) * 64 + 16 * k + 2 * (t % 4) + r / 2 * 8;
      fragments[k][r] = from[0].bits | static_cast<uint32_t>(from[1].bits) << 16;
    }
  }
  float d[n / 2];
  wgmmaFence();
  for (int k = 0; k < 4; k++) wgmmaBf16<n>(d, fragments[k], describeKMajor(sharedAddress(tileB) + 32 * k), k > 0);
  wgmmaCommit();
  wgmmaWait<0>();
  storeAccumulators<n>(out, d);
}

/** e4m3, one k-tile of 128 by TMA. */
template <int n>
KERNEL(warpgroupThreads) void tileE4m3(const GRID_CONSTANT TileArguments a) {
  uint8_t *tileA = sharedMemory(), *tileB = tileA + 64 * 128;
  auto* barrier = reinterpret_cast<Barrier*>(tileB + n * 128);
  if (thread() == 0) {
    barrierInit(barrier, 1);
    fenceBarrierInit();
    barrierArriveExpect(barrier, (64 + n) * 128);
    loadBox(tileA, &a.a, barrier, 0, 0);
    loadBox(tileB, &a.b, barrier, 0, 0);
  }
  syncThreads();
  barrierWait(barrier, 0);
  float d[n / 2];
  wgmmaFence();
  for (int k = 0; k < 4; k++) {
    wgmmaE4m3<n>(d, describeKMajor(sharedAddress(tileA) + 32 * k), describeKMajor(sharedAddress(tileB) + 32 * k), k > 0);
  }
  wgmmaCommit();
  wgmmaWait<0>();
  storeAccumulators<n>(a.out, d);
}

/** A tile in and out again: zeros beyond the edges of the source, nothing beyond those of the target. */
KERNEL(32) void passThrough(const GRID_CONSTANT TensorMap from, const GRID_CONSTANT TensorMap to, int column, int row) {
  uint8_t* tile = sharedMemory();
  auto* barrier = reinterpret_cast<Barrier*>(tile + 8192);
  if (thread() == 0) {
    barrierInit(barrier, 1);
    fenceBarrierInit();
    barrierArriveExpect(barrier, 8192);
    loadBox(tile, &from, barrier, column, row);
    barrierWait(barrier, 0);
    storeBox(&to, tile, column, row);
    commitStores();
    waitForStores();
  }
}

std::vector<double> product(const std::vector<double>& a, const std::vector<double>& b, int n, int depth) {
  std::vector<double> d(static_cast<size_t>(rows) * n);
  for (int i = 0; i < rows; i++) {
    for (int j = 0; j < n; j++) {
      for (int k = 0; k < depth; k++) d[i * n + j] += a[i * depth + k] * b[j * depth + k];
    }
  }
  return d;
}

std::vector<double> doubles(const std::vector<Bf16>& values) {
  std::vector<double> all;
  for (const Bf16 value : values) all.push_back(toFloat(value));
  return all;
}

// [rows, columns] to [columns, rows].
std::vector<Bf16> turned(const std::vector<Bf16>& matrix, int rowCount, int columnCount) {
  std::vector<Bf16> all(matrix.size());
  for (int r = 0; r < rowCount; r++) {
    for (int c = 0; c < columnCount; c++) all[c * rowCount + r] = matrix[r * columnCount + c];
  }
  return all;
}

template <int n, Major majorA, Major majorB>
void checkTile(CheckRun& run, Mistake mistake = Mistake::none) {
  Random random(run.seed * 1000 + n);
  constexpr int tiles = 2, depth = 64 * tiles;
  const auto a = random.bf16s(int64_t{rows} * depth), b = random.bf16s(int64_t{n} * depth);
  const auto deviceA = run.upload(majorA == Major::k ? a : turned(a, rows, depth));
  const auto deviceB = run.upload(majorB == Major::k ? b : turned(b, n, depth));
  const auto out = run.poisoned<float>(int64_t{rows} * n);
  const auto mapOf = [&](const Bf16* data, Major major, int count) {
    return encodeTensorMap(major == Major::k ? BoxedMatrix{data, ElementType::bf16, depth, count, 2 * depth, 64, count < 64 ? count : 64}
                                             : BoxedMatrix{data, ElementType::bf16, count, depth, 2 * count, 64, 64});
  };
  const int64_t sharedBytes = 64 * 128 + n * 128 + 2048;
  launch("tileBf16", tileBf16<n, majorA, majorB>, {{1}, {warpgroupThreads}, sharedBytes}, run.stream,
         TileArguments{mapOf(deviceA.data(), majorA, rows), mapOf(deviceB.data(), majorB, n), out.data(), tiles, mistake});
  const auto got = run.download(out);
  const auto want = product(doubles(a), doubles(b), n, depth);
  const std::string name = "wgmma n " + std::to_string(n) + (majorA == Major::mn ? " A of M" : "") + (majorB == Major::mn ? " B of N" : "");
  for (size_t i = 0; i < want.size(); i++) run.near(name, got[i], want[i], 1e-5, 1e-4);
}

template <int n>
void checkRegisters(CheckRun& run, Mistake mistake = Mistake::none) {
  Random random(run.seed * 1000 + n + 1);
  const auto a = random.bf16s(rows * 64), b = random.bf16s(n * 64);
  const auto deviceA = run.upload(a), deviceB = run.upload(b);
  const auto out = run.poisoned<float>(int64_t{rows} * n);
  launch("tileRegisters", tileRegisters<n>, {{1}, {warpgroupThreads}, n * 128 + 1024}, run.stream, deviceA.data(), deviceB.data(), out.data(), mistake);
  const auto got = run.download(out);
  const auto want = product(doubles(a), doubles(b), n, 64);
  for (size_t i = 0; i < want.size(); i++) run.near("wgmma of registers, n " + std::to_string(n), got[i], want[i], 1e-5, 1e-4);
}

template <int n>
void checkE4m3(CheckRun& run) {
  Random random(run.seed * 1000 + n + 2);
  std::vector<uint8_t> a, b;
  for (int i = 0; i < rows * 128; i++) a.push_back(toE4m3(random.normal() * 20));
  for (int i = 0; i < n * 128; i++) b.push_back(toE4m3(random.normal() * 20));
  const auto deviceA = run.upload(a), deviceB = run.upload(b);
  const auto out = run.poisoned<float>(int64_t{rows} * n);
  launch("tileE4m3", tileE4m3<n>, {{1}, {warpgroupThreads}, (64 + n) * 128 + 1024}, run.stream,
         TileArguments{encodeTensorMap({deviceA.data(), ElementType::e4m3, 128, rows, 128, 128, rows}),
                       encodeTensorMap({deviceB.data(), ElementType::e4m3, 128, n, 128, 128, n}), out.data(), 1, Mistake::none});
  const auto got = run.download(out);
  std::vector<double> wideA, wideB;
  for (const uint8_t value : a) wideA.push_back(fromE4m3(value));
  for (const uint8_t value : b) wideB.push_back(fromE4m3(value));
  const auto want = product(wideA, wideB, n, 128);
  // Products up to some 5000, four k-steps of 33 terms cut off 2^-13 below the largest.
  for (size_t i = 0; i < want.size(); i++) run.near("wgmma of e4m3, n " + std::to_string(n), got[i], want[i], 0.002, 100);
}

void checkPassThrough(CheckRun& run) {
  Random random(run.seed + 7);
  constexpr int height = 75, width = 104;
  const auto source = random.bf16s(height * width);
  const auto from = run.upload(source);
  const auto to = run.poisoned<Bf16>(height * width);
  const auto before = run.download(to);
  const auto mapOf = [&](const Bf16* data) { return encodeTensorMap({data, ElementType::bf16, width, height, 2 * width, 64, 64}); };
  launch("passThrough", passThrough, {{1}, {32}, 9216}, run.stream, mapOf(from.data()), mapOf(to.data()), 64, 32);
  auto want = before;
  for (int r = 32; r < height; r++) {
    for (int c = 64; c < width; c++) want[r * width + c] = source[r * width + c];
  }
  run.sameBytes("a box at the corner", run.download(to), want);
}

template <typename Body>
void expectFault(CheckRun& run, const char* words, Body body) {
  std::string message = "nothing";
  CheckRun inner{run.stream, run.seed, {}, 0, 0};
  try {
    body(inner);
    if (!inner.fault.empty()) message = inner.fault;
  } catch (const NativeFault& fault) {
    message = fault.what();
  }
  run.comparedCount++;
  if (message.find(words) == std::string::npos && run.fault.empty()) {
    run.fault = std::string("expected a fault about \"") + words + "\", got: " + message;
  }
}

void checkMistakes(CheckRun& run) {
  const auto tile = [](Mistake mistake) { return [mistake](CheckRun& inner) { checkTile<64, Major::k, Major::k>(inner, mistake); }; };
  expectFault(run, "bulk copy", tile(Mistake::noBarrierWait));
  expectFault(run, "more bytes than its mbarrier expects", tile(Mistake::tooFewBytes));
  expectFault(run, "waits for an mbarrier", tile(Mistake::tooManyBytes));
  expectFault(run, "more threads arrive", tile(Mistake::barrierTwice));
  expectFault(run, "without a wgmma.fence", tile(Mistake::noFence));
  expectFault(run, "a wgmma that", tile(Mistake::noWgmmaWait));
  expectFault(run, "does not start where its swizzle pattern does", tile(Mistake::unevenStart));
  expectFault(run, "wgmma", tile(Mistake::overwritesOperand));
  expectFault(run, "wgmma of registers", [](CheckRun& inner) { checkRegisters<32>(inner, Mistake::noProxyFence); });
  const auto matrix = run.upload(std::vector<Bf16>(64 * 64));
  expectFault(run, "multiple of 16 bytes apart", [&](CheckRun&) { encodeTensorMap({matrix.data(), ElementType::bf16, 60, 64, 120, 64, 64}); });
  expectFault(run, "at most 128 bytes", [&](CheckRun&) { encodeTensorMap({matrix.data(), ElementType::bf16, 64, 64, 128, 128, 64}); });
  expectFault(run, "must start at", [&](CheckRun&) { encodeTensorMap({matrix.data() + 4, ElementType::bf16, 64, 60, 128, 64, 60}); });
}

}  // namespace

void checkHopperLayer(CheckRun& run) {
  checkTile<8, Major::k, Major::k>(run);
  checkTile<24, Major::k, Major::k>(run);
  checkTile<48, Major::k, Major::k>(run);
  checkTile<64, Major::k, Major::k>(run);
  checkTile<128, Major::k, Major::k>(run);
  checkTile<256, Major::k, Major::k>(run);
  checkTile<8, Major::mn, Major::k>(run);
  checkTile<64, Major::k, Major::mn>(run);
  checkTile<128, Major::mn, Major::mn>(run);
  checkRegisters<8>(run);
  checkRegisters<128>(run);
  checkE4m3<16>(run);
  checkE4m3<128>(run);
  checkPassThrough(run);
  if (deviceInfo().isEmulated) checkMistakes(run);
}

}  // namespace variator::cuda
