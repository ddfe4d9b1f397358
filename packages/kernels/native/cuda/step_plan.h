// A step as the device wants it: what a VariatorCudaStep says, checked, and laid out in one buffer whose parts lie where the
// largest step would have them, so that a captured graph finds them there. Pure; made by engine.cc before every step.
#pragma once
#include <cstdint>
#include <vector>

#include "device_model.h"
#include "variator_cuda.h"

namespace variator::cuda {

// A row whose logits are computed: of a token that is drawn, or of one that is scored.
struct HeadRow {
  int32_t row, sequence;
  int32_t scoredTokenId;  // -1: a token is drawn
  int64_t sampledAt;      // where the drawn token goes; -1: nowhere
  int64_t logprobsAt;     // where its log-probabilities go; -1: nowhere
  bool isLast;            // of its sequence: its logits are what isLogitsWanted asks for
};

// Offsets in int32 words of the step's buffer on the device.
struct StepLayout {
  int64_t tokenIds, positions, slots;         // [mostTokens]
  int64_t tokenStarts;                        // [mostSequences + 1]
  int64_t contextLengths, partialStarts;      // [mostSequences]
  int64_t decodeSequences, decodePairs;       // [mostDecodeItems]
  int64_t chunkSequences, chunkPairs;         // [mostChunkItems]
  int64_t headRows;                           // [mostHeadRows]
  int64_t temperatures, topPs, minPs, topKs, drawPositions;  // [mostHeadRows]
  int64_t seeds;                              // [mostHeadRows, 2]
  int64_t blockTables;                        // [mostSequences, mostBlocksPerSequence], last
  int64_t words;
  int32_t mostDecodeItems, mostChunkItems;
};
StepLayout layoutOf(const DeviceModel& model, const VariatorCudaLimits& limits);

struct StepPlan {
  int32_t tokenCount = 0, sequenceCount = 0;
  int32_t decodeItemCount = 0, chunkItemCount = 0;
  int32_t chunkRowTiles = 1;
  bool isDecodeOnly = false;  // one token a sequence, and every head row is a sequence's own
  int32_t splitCount = 0;     // of all decode items
  std::vector<HeadRow> headRows;
  int64_t sampledCount = 0, logprobCount = 0;
};

// Buckets that decode steps are padded to.
constexpr int32_t decodeBuckets[] = {1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256};
// The least bucket of `sequenceCount` or more within `mostSequences`; 0: none.
int32_t bucketOf(int32_t sequenceCount, int32_t mostSequences);

// Throws NativeFault that names the argument. Touches no words.
void checkStep(const VariatorCudaStep& step, const DeviceModel& model, const VariatorCudaLimits& limits, int32_t blockCount);
// Fills `words` [layout.words]. paddedCount: sequences to lay out for, beyond the step's own ones that do nothing; 0: none.
// chunkItemPairs: (token, head) pairs of a chunk that attention takes at once; 0: by the chunks' lengths.
StepPlan planStep(const VariatorCudaStep& step, const DeviceModel& model, const VariatorCudaLimits& limits, const StepLayout& layout,
                  int32_t splitTokens, int32_t paddedCount, int32_t chunkItemPairs, int32_t* words);
// Rows whose logits the step needs.
std::vector<HeadRow> headRowsOf(const VariatorCudaStep& step, int64_t& sampledCount, int64_t& logprobCount);
bool isDecodeOnly(const VariatorCudaStep& step);

}  // namespace variator::cuda
