// The size of a launch, alike for device, emulator and host. Used by every launcher.
#pragma once
#include <cstdint>

namespace variator::cuda {

struct Size3 {
  uint32_t x = 1, y = 1, z = 1;
  uint64_t count() const { return uint64_t{x} * y * z; }
};

struct LaunchShape {
  Size3 grid, block;
  int64_t sharedBytes = 0;
  Size3 cluster{};               // blocks that run together; the grid is a multiple of it
  bool overlapsBefore = false;   // programmatic dependent launch: may start before the launch before it has ended
};

}  // namespace variator::cuda
