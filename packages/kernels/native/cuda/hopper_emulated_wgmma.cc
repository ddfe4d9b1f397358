// See hopper_emulated.h: wgmma. An operation is computed when its warp waits for its group, from what asynchronous readers
// see; its accumulators are poison until then, and its operands must not have changed since it was issued. Operands are
// found by the fields of their descriptors as the PTX ISA reads them ("Matrix Descriptor Format", "Strides"), accumulators
// by its "Register Fragments". bf16 products are summed in float32, one k after the other; e4m3 products as the device
// does it: aligned to the largest of a k-step and cut off 13 bits below it.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "hopper_emulated.h"

namespace variator::cuda::proxy {
namespace {

constexpr uint32_t poison = 0x7fc0dead;
constexpr uint32_t wholeWarp = 0xffffffffu;

struct Operand {
  uint32_t start, leading, stride, swizzleBytes;
  bool isMnMajor;
  int elementBytes;

  Operand(uint64_t descriptor, bool isMn, int bytes) : isMnMajor(isMn), elementBytes(bytes) {
    start = static_cast<uint32_t>(descriptor & 0x3fff) << 4;
    leading = static_cast<uint32_t>(descriptor >> 16 & 0x3fff) << 4;
    stride = static_cast<uint32_t>(descriptor >> 32 & 0x3fff) << 4;
    const uint32_t mode = static_cast<uint32_t>(descriptor >> 62);
    swizzleBytes = mode == 0 ? 0 : 256u >> mode;  // 1, 2, 3: 128, 64, 32
    if ((descriptor >> 49 & 7) != 0) refuse("wgmma: a base offset is not supported by the emulated device");
    const uint32_t reserved = (descriptor >> 14 & 3) | (descriptor >> 30 & 3) | (descriptor >> 46 & 7) | (descriptor >> 52 & 0x3ff);
    if (reserved != 0) refuse("wgmma: reserved bits of a descriptor are set");
    // The pattern repeats every 8 * swizzle bytes; a start off it would need a base offset.
    if (swizzleBytes != 0 && (start >> 7 & (swizzleBytes / 16 - 1)) != 0) {
      refuse("wgmma: a matrix does not start where its swizzle pattern does");
    }
    if (swizzleBytes != 0 && stride % (8 * swizzleBytes) != 0) refuse("wgmma: the stride offset breaks the swizzle pattern");
    if (isMnMajor && elementBytes != 2) refuse("wgmma: 8-bit operands are K-major only");
  }

  /** Address of the 16 bytes that hold element (mn, k), and the byte within them. */
  uint32_t addressOf(int mn, int k) const {
    const uint32_t width = swizzleBytes == 0 ? 1 : swizzleBytes / 16;  // 16-byte units of a pattern's row
    uint32_t address;
    if (isMnMajor) {
      const auto unit = static_cast<uint32_t>(mn * elementBytes / 16);
      const auto row = static_cast<uint32_t>(k);
      const uint32_t within = static_cast<uint32_t>(mn * elementBytes % 16);
      address = swizzleBytes == 0 ? unit * stride + row % 8 * 16 + row / 8 * leading
                                  : unit % width * 16 + unit / width * leading + row % 8 * swizzleBytes + row / 8 * stride;
      address += within;
    } else {
      const auto row = static_cast<uint32_t>(mn);
      const auto unit = static_cast<uint32_t>(k * elementBytes / 16);
      address = row % 8 * width * 16 + row / 8 * stride + unit * (swizzleBytes == 0 ? leading : 16) +
                static_cast<uint32_t>(k * elementBytes % 16);
    }
    return swizzled(start + address, swizzleBytes);
  }
};

float e4m3Of(uint8_t bits) {
  static const auto table = [] {
    std::array<float, 256> values;
    for (int i = 0; i < 256; i++) {
      const int exponent = i >> 3 & 15, fraction = i & 7;
      float value = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -9)
                                  : std::ldexp(static_cast<float>(8 + fraction), exponent - 10);
      if ((i & 127) == 127) value = NAN;
      values[i] = i & 128 ? -value : value;
    }
    return values;
  }();
  return table[bits];
}

float bf16Of(uint16_t bits) {
  const uint32_t word = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &word, 4);
  return value;
}

float elementAt(const uint8_t* bytes, int elementBytes) {
  if (elementBytes == 1) return e4m3Of(*bytes);
  uint16_t bits;
  std::memcpy(&bits, bytes, 2);
  return bf16Of(bits);
}

int depthOf(const WgmmaCall& call) { return 32 / call.elementBytes; }

/** All 16-byte granules of both operands. */
template <typename Visit>
void visitGranules(const WgmmaCall& call, Visit visit) {
  const auto walk = [&](const Operand& operand, int count) {
    const int perGranule = 16 / call.elementBytes, depth = depthOf(call);
    for (int mn = 0; mn < count; mn += operand.isMnMajor ? perGranule : 1) {
      for (int k = 0; k < depth; k += operand.isMnMajor ? 1 : perGranule) visit(operand.addressOf(mn, k) / granuleBytes);
    }
  };
  if (call.a == nullptr) walk(Operand(call.descA, call.isMnMajorA, call.elementBytes), 64);
  walk(Operand(call.descB, call.isMnMajorB, call.elementBytes), call.n);
}

uint64_t mix(uint64_t hash, uint64_t word) { return (hash ^ word) * 0x9e3779b97f4a7c15ull ^ hash >> 29; }

uint64_t hashOperands(const BlockState& state, const WgmmaCall& call) {
  uint64_t hash = 1;
  visitGranules(call, [&](uint32_t granule) {
    uint64_t words[2];
    std::memcpy(words, state.asyncView.data() + granule * granuleBytes, 16);
    hash = mix(mix(hash, words[0]), words[1]);
  });
  return hash;
}

uint64_t keyOf(const WgmmaCall& call) {
  uint64_t hash = mix(mix(static_cast<uint64_t>(call.n), call.descA), call.descB);
  return mix(hash, static_cast<uint64_t>(call.elementBytes) | static_cast<uint64_t>(call.a != nullptr) << 8 |
                       static_cast<uint64_t>(call.isMnMajorA) << 9 | static_cast<uint64_t>(call.isMnMajorB) << 10 |
                       static_cast<uint64_t>(call.accumulates) << 11);
}

/** Sum of e4m3 products and the accumulator, each cut off 13 bits below the largest. */
float sumCutOff(float accumulator, const float* products, int count) {
  float largest = std::fabs(accumulator);
  bool isFinite = std::isfinite(accumulator);
  for (int k = 0; k < count; k++) {
    largest = std::max(largest, std::fabs(products[k]));
    isFinite = isFinite && std::isfinite(products[k]);
  }
  if (!isFinite) return NAN;
  if (largest == 0) return 0;
  int exponent;
  std::frexp(largest, &exponent);
  const float up = std::ldexp(1.0f, 14 - exponent), down = std::ldexp(1.0f, exponent - 14);
  int64_t sum = static_cast<int64_t>(accumulator * up);
  for (int k = 0; k < count; k++) sum += static_cast<int64_t>(products[k] * up);
  return static_cast<float>(sum) * down;
}

Accumulator& accumulatorOf(Lane& lane, const float* registers) {
  for (Accumulator& one : lane.accumulators) {
    if (one.registers == registers) return one;
  }
  refuse("wgmma: an accumulator is lost");
}

/** One operation of one warp: its 16 rows of D. */
void compute(emulated::Block& block, uint32_t warp, Lane* lanes) {
  BlockState& state = stateOf(block);
  const WgmmaOperation first = lanes[0].operations.front();
  const WgmmaCall& call = first.call;
  const int n = call.n, depth = depthOf(call), bytes = call.elementBytes;
  for (int i = 1; i < 32; i++) {
    const auto& operations = lanes[i].operations;
    if (operations.empty() || keyOf(operations.front().call) != keyOf(call)) refuse("wgmma: lanes of a warp differ");
  }
  auto& history = state.warpgroupHistory[warp / 4];
  const size_t progress = state.warpProgress[warp]++;
  if (progress == history.size()) {
    history.push_back(keyOf(call));
  } else if (history[progress] != keyOf(call)) {
    refuse("wgmma: warps of a warpgroup differ");
  }
  if (hashOperands(state, call) != first.operandsHash) refuse("wgmma: an operand changed before the operation was complete");
  visitGranules(call, [&](uint32_t granule) { state.granules[granule].wgmmaReaders--; });

  static float a[16][32], b[32][256], d[16][256];
  const uint8_t* view = state.asyncView.data();
  if (call.a == nullptr) {
    const Operand operand(call.descA, call.isMnMajorA, bytes);
    const int firstRow = static_cast<int>(warp % 4) * 16;
    for (int m = 0; m < 16; m++) {
      for (int k = 0; k < depth; k++) a[m][k] = elementAt(view + operand.addressOf(firstRow + m, k), bytes);
    }
  } else {
    for (int i = 0; i < 32; i++) {
      for (int r = 0; r < 4; r++) {
        const uint32_t word = lanes[i].operations.front().a[r];
        for (int h = 0; h < 2; h++) a[i / 4 + r % 2 * 8][2 * (i % 4) + r / 2 * 8 + h] = bf16Of(static_cast<uint16_t>(word >> 16 * h));
      }
    }
  }
  const Operand operand(call.descB, call.isMnMajorB, bytes);
  for (int column = 0; column < n; column++) {
    for (int k = 0; k < depth; k++) b[k][column] = elementAt(view + operand.addressOf(column, k), bytes);
  }
  const auto placeOf = [](int lane, int i) { return std::pair(lane / 4 + i / 2 % 2 * 8, i / 4 * 8 + 2 * (lane % 4) + i % 2); };
  for (int lane = 0; lane < 32; lane++) {
    const Accumulator& accumulator = accumulatorOf(lanes[lane], lanes[lane].operations.front().d);
    for (int i = 0; i < n / 2; i++) {
      const auto [row, column] = placeOf(lane, i);
      d[row][column] = call.accumulates ? accumulator.values[i] : 0.0f;
    }
  }
  for (int m = 0; m < 16; m++) {
    if (bytes == 2) {
      for (int k = 0; k < depth; k++) {
        for (int column = 0; column < n; column++) d[m][column] += a[m][k] * b[k][column];
      }
    } else {
      for (int column = 0; column < n; column++) {
        float products[32];
        for (int k = 0; k < depth; k++) products[k] = a[m][k] * b[k][column];
        d[m][column] = sumCutOff(d[m][column], products, depth);
      }
    }
  }
  for (int lane = 0; lane < 32; lane++) {
    Lane& own = lanes[lane];
    const WgmmaOperation operation = own.operations.front();
    own.operations.erase(own.operations.begin());
    Accumulator& accumulator = accumulatorOf(own, operation.d);
    if (operation.call.a != nullptr && std::memcmp(operation.call.a, operation.a, 16) != 0) {
      refuse("wgmma: registers of A changed before the operation was complete");
    }
    for (int i = 0; i < n / 2; i++) {
      const auto [row, column] = placeOf(lane, i);
      accumulator.values[i] = d[row][column];
    }
    if (--accumulator.inFlight > 0) continue;
    for (int i = 0; i < n / 2; i++) {
      uint32_t bits;
      std::memcpy(&bits, operation.d + i, 4);
      if (bits != poison) refuse("wgmma: an accumulator was written before the operation was complete");
    }
    std::memcpy(operation.d, accumulator.values.data(), static_cast<size_t>(n / 2) * 4);
    own.accumulators.erase(own.accumulators.begin() + (&accumulator - own.accumulators.data()));
  }
}

}  // namespace

void wgmma(const WgmmaCall& call, float* d) {
  emulated::Thread& thread = emulated::self();
  emulated::Block& block = *thread.block;
  BlockState& state = stateOf(block);
  if ((thread.flat / 128 + 1) * 128 > block.threads.size()) refuse("wgmma takes a whole warpgroup of 128 threads");
  if (call.n < 8 || call.n > 256 || call.n % 8 != 0) refuse("wgmma: N is a multiple of 8 from 8 to 256");
  Lane& lane = state.lanes[thread.flat];
  if (!lane.isFenced) refuse("wgmma without a wgmma.fence before it");
  WgmmaOperation operation{call, {}, d, lane.openGroup, 0};
  if (call.a != nullptr) std::memcpy(operation.a, call.a, 16);
  if (thread.flat % 32 == 0) {
    visitGranules(call, [&](uint32_t granule) {
      checkRange(block, granule * granuleBytes, granuleBytes, "wgmma");
      if (state.granules[granule].copyWriters != 0) refuse("wgmma reads the target of a bulk copy that is under way");
      state.granules[granule].wgmmaReaders++;
    });
    operation.operandsHash = hashOperands(state, call);
  }
  const auto found = std::find_if(lane.accumulators.begin(), lane.accumulators.end(), [&](const Accumulator& one) { return one.registers == d; });
  if (found == lane.accumulators.end()) {
    lane.accumulators.push_back({d, 1, {}});
    std::memcpy(lane.accumulators.back().values.data(), d, static_cast<size_t>(call.n / 2) * 4);
    for (int i = 0; i < call.n / 2; i++) std::memcpy(d + i, &poison, 4);
  } else {
    found->inFlight++;
  }
  lane.operations.push_back(operation);
}

void wgmmaFence() {
  const emulated::Thread& thread = emulated::self();
  stateOf(*thread.block).lanes[thread.flat].isFenced = true;
}

void wgmmaCommit() {
  const emulated::Thread& thread = emulated::self();
  stateOf(*thread.block).lanes[thread.flat].openGroup++;
}

void wgmmaWait(uint32_t pendingGroups) {
  emulated::Thread& thread = emulated::self();
  stateOf(*thread.block).lanes[thread.flat].isFenced = false;
  emulated::gatherWarp("wgmma.wait_group", wholeWarp, &pendingGroups, nullptr, [](emulated::Gathering& all) {
    const uint32_t pending = *static_cast<const uint32_t*>(all.in[0]);
    const uint32_t warp = all.threads[0]->flat / 32;
    emulated::Block& block = *all.threads[0]->block;
    Lane* lanes = &stateOf(block).lanes[static_cast<size_t>(warp) * 32];
    while (!lanes[0].operations.empty() && lanes[0].operations.front().group + pending < lanes[0].openGroup) {
      compute(block, warp, lanes);
    }
  });
}

}  // namespace variator::cuda::proxy
