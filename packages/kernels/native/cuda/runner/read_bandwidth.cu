// See read_bandwidth.h.
#include "read_bandwidth.h"

#include "../device.cuh"

namespace variator::cuda {
namespace {

constexpr int threads = 512, loads = 8;

struct ReadArguments {
  const uint8_t* from;
  int64_t groupCount;  // of 16 bytes
  uint32_t* out;
};

KERNEL(threads) void readGroups(const ReadArguments a) {
  uint32_t mixed = 0;
  const int64_t stride = int64_t{gridSize().x} * threads;
  for (int64_t first = int64_t{blockIndex().x} * threads + thread(); first < a.groupCount; first += stride * loads) {
    Bytes16 values[loads];
#pragma unroll
    for (int i = 0; i < loads; i++) values[i] = first + i * stride < a.groupCount ? loadOnce16(a.from + (first + i * stride) * 16) : Bytes16{{0, 0, 0, 0}};
#pragma unroll
    for (int i = 0; i < loads; i++) mixed ^= values[i].words[0] ^ values[i].words[1] ^ values[i].words[2] ^ values[i].words[3];
  }
  // Never so with random bytes, but nobody can know.
  if (mixed == 0x9e3779b9u) *a.out = mixed;
}

KERNEL(32) void nothing(int32_t) {}

}  // namespace

void readAll(const void* from, int64_t bytes, uint32_t* out, uint32_t blocks, Stream stream) {
  launch("readAll", readGroups, {{blocks}, {threads}}, stream, ReadArguments{static_cast<const uint8_t*>(from), bytes / 16, out});
}

void doNothing(Stream stream) { launch("doNothing", nothing, {{1}, {32}}, stream, 0); }

}  // namespace variator::cuda
