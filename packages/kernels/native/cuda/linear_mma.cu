// linearByMma of linear.h. The matrix is the 16-row side of mma.m16n8k16 and the rows of x its 8-column side, at every
// size, and each sum takes the columns 16 by 16 in their order into one accumulator: so a row's bits are the same in a tile
// of 8 rows and in one of 128. Both operands come through a ring of cp.async stages in shared memory:
//   stage: [outputs + tokens rows] x 128 bytes (64 columns), 16-byte chunk c of row r at chunk c ^ (r % 8)
// so that neither the copies nor ldmatrix meet a bank twice.
#include "linear_take.cuh"
#include "../native_fault.h"

namespace variator::cuda {
namespace {

constexpr int depth = 64;  // columns of a stage
constexpr int rowBytes = depth * 2;

DEVICE uint8_t* chunkAt(uint8_t* rows, int row, int chunk) { return rows + row * rowBytes + ((chunk ^ (row % 8)) * 16); }

template <int outputs, int tokens, int stages, int warpsDown, int warpsAcross>
struct Mma {
  static constexpr int threads = 32 * warpsDown * warpsAcross;
  static constexpr int stageBytes = (outputs + tokens) * rowBytes;
  static constexpr int stagedStride = outputs + 4;  // floats of a token's results in shared memory
  static constexpr int64_t ringBytes = int64_t{stages} * stageBytes;
  static constexpr int64_t resultBytes = int64_t{tokens} * stagedStride * 4;
  static constexpr int64_t sharedBytes = ringBytes > resultBytes ? ringBytes : resultBytes;
  static constexpr int down = outputs / warpsDown / 16, across = tokens / warpsAcross / 8;  // fragments of a warp
  static_assert(down >= 1 && across >= 1 && outputs % (16 * warpsDown) == 0 && tokens % (8 * warpsAcross) == 0);
};

// Rows beyond the last are zeros, and so are columns.
template <int rowCount, int threads>
DEVICE void copyRows(uint8_t* to, const Bf16* from, int64_t firstRow, int64_t rowEnd, int32_t columns, int32_t firstColumn) {
#pragma unroll
  for (int chunk = static_cast<int>(thread()); chunk < rowCount * 8; chunk += threads) {
    const int row = chunk / 8, column = firstColumn + chunk % 8 * 8;
    const bool isThere = firstRow + row < rowEnd && column < columns;
    const Bf16* source = isThere ? from + (firstRow + row) * columns + column : from;
    copyAsync16(chunkAt(to, row, chunk % 8), source, isThere ? 16 : 0);
  }
}

template <int outputs, int tokens, int stages, int warpsDown, int warpsAcross>
KERNEL((Mma<outputs, tokens, stages, warpsDown, warpsAcross>::threads))
void multiply(const LinearArguments a) {
  using Shape = Mma<outputs, tokens, stages, warpsDown, warpsAcross>;
  uint8_t* shared = sharedMemory();
  const int64_t firstToken = int64_t{blockIndex().x} * tokens, firstOutput = int64_t{blockIndex().y} * outputs;
  const int stageCount = static_cast<int>(ceilDivide(a.columns, depth));
  const int warpDown = static_cast<int>(warp()) / warpsAcross * Shape::down * 16;
  const int warpAcross = static_cast<int>(warp()) % warpsAcross * Shape::across * 8;
  const int in8 = static_cast<int>(lane()) % 8, in16 = static_cast<int>(lane()) % 16;

  const auto fetch = [&](int stage) {
    if (stage < stageCount) {
      uint8_t* to = shared + stage % stages * Shape::stageBytes;
      copyRows<outputs, Shape::threads>(to, a.weight, firstOutput, a.rows, a.columns, stage * depth);
      copyRows<tokens, Shape::threads>(to + outputs * rowBytes, a.x, firstToken, a.rowCount, a.columns, stage * depth);
    }
    commitCopies();
  };
  for (int stage = 0; stage < stages - 1; stage++) fetch(stage);

  float sums[Shape::down][Shape::across][4] = {};
  for (int stage = 0; stage < stageCount; stage++) {
    waitCopies<stages - 2>();
    syncThreads();  // the stage is there for all, and the one that is fetched now has been read by all
    fetch(stage + stages - 1);
    uint8_t* weights = shared + stage % stages * Shape::stageBytes;
    uint8_t* x = weights + outputs * rowBytes;
#pragma unroll
    for (int k = 0; k < depth / 16; k++) {
      uint32_t left[Shape::down][4], right[Shape::across][2];
#pragma unroll
      for (int i = 0; i < Shape::down; i++) {
        loadMatrix4(left[i], chunkAt(weights, warpDown + 16 * i + in16, 2 * k + static_cast<int>(lane()) / 16));
      }
#pragma unroll
      for (int j = 0; j + 1 < Shape::across; j += 2) {
        uint32_t both[4];
        loadMatrix4(both, chunkAt(x, warpAcross + 8 * j + static_cast<int>(lane()) / 16 * 8 + in8, 2 * k + static_cast<int>(lane()) / 8 % 2));
        right[j][0] = both[0];
        right[j][1] = both[1];
        right[j + 1][0] = both[2];
        right[j + 1][1] = both[3];
      }
      if constexpr (Shape::across % 2 == 1) {
        loadMatrix2(right[Shape::across - 1], chunkAt(x, warpAcross + 8 * (Shape::across - 1) + in8, 2 * k + static_cast<int>(lane()) / 8 % 2));
      }
#pragma unroll
      for (int i = 0; i < Shape::down; i++) {
#pragma unroll
        for (int j = 0; j < Shape::across; j++) multiplyBf16(sums[i][j], left[i], right[j]);
      }
    }
  }
  waitCopies<0>();
  syncThreads();

  // Results by token in the ring's memory, then out of it in rows.
  float* results = reinterpret_cast<float*>(shared);
#pragma unroll
  for (int i = 0; i < Shape::down; i++) {
#pragma unroll
    for (int j = 0; j < Shape::across; j++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const int output = warpDown + 16 * i + static_cast<int>(lane()) / 4 + e / 2 * 8;
        const int token = warpAcross + 8 * j + static_cast<int>(lane()) % 4 * 2 + e % 2;
        results[token * Shape::stagedStride + output] = sums[i][j][e];
      }
    }
  }
  syncThreads();
  const bool isWhole = a.rows % 4 == 0;
  for (int at = 4 * static_cast<int>(thread()); at < tokens * outputs; at += 4 * Shape::threads) {
    const int token = at / outputs, output = at % outputs;
    if (firstToken + token >= a.rowCount || firstOutput + output >= a.rows) continue;
    const float* from = results + token * Shape::stagedStride + output;
    const float four[4] = {from[0], from[1], from[2], from[3]};
    if (isWhole) {
      takeFour(a, firstToken + token, firstOutput + output, four);
    } else {
      for (int i = 0; i < 4 && firstOutput + output + i < a.rows; i++) takeOne(a, firstToken + token, firstOutput + output + i, four[i]);
    }
  }
}

template <int outputs, int tokens, int stages, int warpsDown, int warpsAcross>
void run(const LinearArguments& a, Stream stream) {
  using Shape = Mma<outputs, tokens, stages, warpsDown, warpsAcross>;
  const Size3 grid{static_cast<uint32_t>(ceilDivide(a.rowCount, tokens)), static_cast<uint32_t>(ceilDivide(a.rows, outputs))};
  launch("linearByMma", multiply<outputs, tokens, stages, warpsDown, warpsAcross>, {grid, {Shape::threads}, Shape::sharedBytes}, stream, a);
}

struct Tile {
  MmaTile shape;
  void (*run)(const LinearArguments& arguments, Stream stream);
};

template <int outputs, int tokens, int stages, int warpsDown, int warpsAcross>
constexpr Tile tile() {
  return {{outputs, tokens, depth, stages}, run<outputs, tokens, stages, warpsDown, warpsAcross>};
}

const Tile tiles[] = {
    tile<16, 8, 8, 1, 1>(),  tile<32, 8, 6, 2, 1>(),  tile<64, 8, 4, 4, 1>(),   tile<64, 16, 4, 4, 1>(),
    tile<64, 32, 4, 4, 1>(), tile<64, 64, 4, 2, 2>(), tile<128, 64, 4, 4, 2>(), tile<128, 128, 4, 4, 2>(),
};

}  // namespace

int32_t mmaTileCount() { return static_cast<int32_t>(sizeof(tiles) / sizeof(tiles[0])); }

MmaTile mmaTileOf(int32_t tile) { return tiles[tile - 1].shape; }

int32_t defaultMmaTile(int32_t rowCount) {
  if (rowCount <= 8) return 1;
  if (rowCount <= 16) return 4;
  if (rowCount <= 32) return 5;
  if (rowCount <= 128) return 6;
  return 8;
}

void linearByMma(const LinearArguments& arguments, int32_t tile, Stream stream) {
  if (tile < 1 || tile > mmaTileCount()) throw NativeFault("linearByMma: there is no tile " + std::to_string(tile));
  if (arguments.columns % 8 != 0) throw NativeFault("linearByMma: columns must be a multiple of 8");
  tiles[tile - 1].run(arguments, stream);
}

}  // namespace variator::cuda
