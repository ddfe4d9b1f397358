// See hopper_emulated.h: bulk tensor copies. A load's target is poison from its issue until the copy happens, some time
// later; a store reads its source at its issue or as late as its issuer lets it.
#include <algorithm>
#include <cstring>
#include <string>

#include "hopper_emulated.h"

namespace variator::cuda::proxy {
namespace {

uint32_t boxRowBytes(const TensorMap& map) {
  return static_cast<uint32_t>(map.matrix.boxColumns) * bytesOf(map.matrix.type);
}
uint32_t boxBytes(const TensorMap& map) { return boxRowBytes(map) * static_cast<uint32_t>(map.matrix.boxRows * map.matrix.boxPlanes); }

/** Calls piece(offset within shared memory, address in global memory or null, bytes of it that exist) for 16 bytes each. */
template <typename Piece>
void walkBox(const TensorMap& map, uint32_t shared, const Coordinates& at, Piece piece) {
  const BoxedMatrix& m = map.matrix;
  const int64_t elementBytes = bytesOf(m.type);
  const uint32_t rowBytes = boxRowBytes(map);
  for (int r = 0; r < m.boxRows * m.boxPlanes; r++) {
    const int64_t row = int64_t{at[1]} + r % m.boxRows, plane = int64_t{at[2]} + r / m.boxRows;
    const bool isInside = row >= 0 && row < m.rows && (m.planes == 0 || (plane >= 0 && plane < m.planes));
    for (uint32_t b = 0; b < rowBytes; b += granuleBytes) {
      const int64_t column = at[0] + b / elementBytes;
      const int64_t existing = isInside && column >= 0 ? std::clamp<int64_t>((m.columns - column) * elementBytes, 0, granuleBytes) : 0;
      const int64_t place = plane * m.planeBytes + row * m.rowBytes + column * elementBytes;
      auto* global = existing > 0 ? static_cast<uint8_t*>(const_cast<void*>(m.data)) + place : nullptr;
      piece(swizzled(shared + static_cast<uint32_t>(r) * rowBytes + b, map.swizzleBytes), global, static_cast<uint32_t>(existing));
    }
  }
}

void checkSource(const TensorMap& map, const Coordinates& at) {
  // Pieces of 16 bytes that begin before column 0 are not split here; kernels have no use for them.
  if (at[0] < 0 && at[0] * static_cast<int>(bytesOf(map.matrix.type)) % 16 != 0) refuse("a box begins at an odd negative column");
}

void performStore(emulated::Block& block, PendingStore& store) {
  BlockState& state = stateOf(block);
  walkBox(store.map, offsetOf(store.source), store.at, [&](uint32_t offset, uint8_t* global, uint32_t bytes) {
    state.granules[offset / granuleBytes].storeReaders--;
    if (global != nullptr) std::memcpy(global, state.asyncView.data() + offset, bytes);
  });
  store.isRead = true;
}

}  // namespace

void loadBox(uint32_t target, const TensorMap& map, uint32_t barrier, Coordinates at, uint32_t multicast) {
  if (target % 128 != 0) refuse("a bulk tensor copy needs a target aligned to 128 bytes");
  checkSource(map, at);
  const uint32_t mask = multicast == 0 ? 1u << (target >> 24) : multicast;
  for (uint32_t rank = 0; rank < 32; rank++) {
    if ((mask >> rank & 1) == 0) continue;
    const uint32_t there = rank << 24 | offsetOf(target);
    emulated::Block& block = blockOf(there);
    checkRange(block, offsetOf(there), boxBytes(map), "bulk tensor copy");
    BlockState& state = stateOf(block);
    walkBox(map, offsetOf(there), at, [&](uint32_t offset, uint8_t*, uint32_t) {
      Granule& granule = state.granules[offset / granuleBytes];
      if (granule.wgmmaReaders != 0) refuse("a bulk copy overwrites an operand of a wgmma that is not complete");
      if (granule.storeReaders != 0) refuse("a bulk copy overwrites the source of a bulk store");
      if (granule.copyWriters++ != 0) refuse("two bulk copies write the same place");
      std::memset(block.shared + offset, 0xff, granuleBytes);
      std::memset(state.asyncView.data() + offset, 0xff, granuleBytes);
    });
    checkRange(block, offsetOf(barrier), 8, "mbarrier");
    emulated::postLater([&block, map, there, barrier, at] {
      BlockState& state = stateOf(block);
      walkBox(map, offsetOf(there), at, [&](uint32_t offset, const uint8_t* global, uint32_t bytes) {
        uint8_t piece[granuleBytes] = {};
        if (global != nullptr) std::memcpy(piece, global, bytes);
        std::memcpy(block.shared + offset, piece, granuleBytes);
        std::memcpy(state.asyncView.data() + offset, piece, granuleBytes);
        state.granules[offset / granuleBytes].copyWriters--;
      });
      completeBytes(block, offsetOf(barrier), boxBytes(map));
    });
  }
}

void storeBox(const TensorMap& map, uint32_t source, Coordinates at) {
  if (source % 128 != 0) refuse("a bulk tensor store needs a source aligned to 128 bytes");
  checkSource(map, at);
  emulated::Thread& thread = emulated::self();
  emulated::Block& block = *thread.block;
  checkRange(block, offsetOf(source), boxBytes(map), "bulk tensor store");
  BlockState& state = stateOf(block);
  StoringThread& storing = state.storing[thread.flat];
  walkBox(map, offsetOf(source), at, [&](uint32_t offset, uint8_t*, uint32_t) {
    Granule& granule = state.granules[offset / granuleBytes];
    if (granule.copyWriters != 0) refuse("a bulk store reads the target of a bulk copy");
    granule.storeReaders++;
  });
  storing.stores.push_back({map, source, at, storing.openGroup, false});
  if (emulated::drawBelow(2) == 0) performStore(block, storing.stores.back());
}

void commitStores() {
  emulated::Thread& thread = emulated::self();
  stateOf(*thread.block).storing[thread.flat].openGroup++;
}

void waitForStores(uint32_t pendingGroups) {
  emulated::Thread& thread = emulated::self();
  StoringThread& storing = stateOf(*thread.block).storing[thread.flat];
  const auto isDue = [&](const PendingStore& store) { return store.group + pendingGroups < storing.openGroup; };
  for (PendingStore& store : storing.stores) {
    if (isDue(store) && !store.isRead) performStore(*thread.block, store);
  }
  storing.stores.erase(std::remove_if(storing.stores.begin(), storing.stores.end(), isDue), storing.stores.end());
}

}  // namespace variator::cuda::proxy
