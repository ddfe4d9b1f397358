// One step of the model: embedding, layers, LM head, sampling, for every sequence of a batch. The road is in step.cc; the linear layers are in step_linear.cc.
// Owned by Engine; runs on its compute thread and thread team.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

#include "assisted_units.h"
#include "attention_dispatch.h"
#include "expert_routing.h"
#include "float_ops.h"
#include "kv_cache.h"
#include "linear_dispatch.h"
#include "linear_variants.h"
#include "logit_rules.h"
#include "packed_model.h"
#include "sampling.h"
#include "thread_team.h"

namespace variator {

static inline int64_t padded(int64_t columns) { return (columns + 31) / 32 * 32; }

// A thread's part of `count` things in a row.
struct Share {
  int64_t begin, end;
};
static inline Share shareOf(int64_t count, int thread, int threadCount) {
  return {count * thread / threadCount, count * (thread + 1) / threadCount};
}

// All but the reference attend split by split, each to a cache of its own format.
enum class AttentionVariant { Reference, Float32, Bf16, Int8 };
KvFormat kvFormatOf(AttentionVariant attention);

// Log-probabilities that a step is asked for.
struct Scoring {
  std::vector<int32_t> topCounts;       // [n], -1: none wanted; else so many of the likeliest beside the token itself
  std::vector<int32_t> scoredTokenIds;  // [T], the token that follows a row, or -1 where its log-probability is not wanted
};

// StepInput of native.ts, copied and checked (addon.cc), and StepOutput.
struct Step {
  LinearVariant linear;
  LinearDispatch dispatch;
  AttentionVariant attention;
  AttentionDispatch attentionDispatch;
  int64_t splitTokens;  // positions of a split of a context; the reference has none
  int threadCount;
  // With one thread: so many others help it with the linear layers as far as they get a processor (assisted_units.h).
  int assistantCount = 0;
  std::vector<int32_t> tokenIds;        // [T]
  std::vector<int32_t> tokenStarts;     // [n + 1]
  std::vector<int32_t> contextLengths;  // [n]
  std::vector<int32_t> blockTables;     // [n, blockTableStride]
  int64_t blockTableStride;
  std::vector<uint8_t> isSampled;       // [n]
  std::vector<int32_t> draftCounts;     // [n] how many of its last tokens are drafts; then as many more rows yield a token
  std::vector<Sampling> samplings;      // [n]
  std::optional<LogitRules> rules;
  std::optional<Scoring> scoring;
  bool isLogitsWanted;

  // By sequence: 1 + its draft count, what follows each row from the one before its drafts on; -1 where nothing was sampled.
  std::vector<int32_t> sampledTokenIds;
  std::vector<float> logits;             // [n, vocabularySize] when wanted
  // By sequence: its scored rows, then its sampled token; 1 + top count entries each, the token itself first.
  std::vector<int32_t> logprobTokenIds;
  std::vector<float> logprobs;
  double deviceMs = 0;
  double foreignCpuShare = 0;

  int64_t sequenceCount() const { return static_cast<int64_t>(contextLengths.size()); }
  int64_t tokenCount() const { return static_cast<int64_t>(tokenIds.size()); }
  int64_t chunkLength(int64_t sequence) const { return tokenStarts[sequence + 1] - tokenStarts[sequence]; }
};

// Memory that grows to the largest step seen; zero at first, so that padding columns stay zero.
template <typename T>
class Scratch {
 public:
  T* sized(int64_t count) {
    if (static_cast<int64_t>(values_.size()) < count + slack) values_.assign(static_cast<size_t>(count + slack), T{});
    const auto address = reinterpret_cast<uintptr_t>(values_.data());
    return reinterpret_cast<T*>((address + 63) & ~uintptr_t{63});
  }

 private:
  static constexpr int64_t slack = 64;
  std::vector<T> values_;
};

struct ActivationScratch {
  Activations sized(int64_t rows, int64_t columns);
  Scratch<float> values, scales, scaledSums, restScales, restScaledSums;
  Scratch<int8_t> codes, restCodes;
  Scratch<uint16_t> bf16;
};

// Where attention reads queries and writes what was attended to, by row: heads lie in it one after the other.
struct AttentionRows {
  float* queries;
  int64_t queryStride, queryCount;  // elements; of all rows
  float* outs;
  int64_t outStride;
};

class StepRunner {
 public:
  StepRunner(const Model& model, ThreadTeam& team) : model_(model), team_(team), threads_(team.threadCount()) {}
  // `packed` may be null for the reference variant. Throws NativeFault where logits are not finite.
  void run(Step& step, const KvCache& kvCache, const PackedModel* packed);
  // What a thread of the team does that was called to assist.
  void assist(int thread);

  // Attention without the step around it (attention_timing.h, attention_trial.h). Once for a step; the step stays the caller's.
  AttentionRows beginAttention(Step& step, const KvCache& kvCache);
  // Before each pass over the layers, while no thread attends.
  void listAttention() { listAttentionUnits(); }
  // By every thread of the step side by side.
  void attendLayer(int thread, int64_t layer) { attend(thread, layer); }

 private:
  struct ThreadScratch {
    Scratch<float> weightRows, panels, rest, scores, splits, weightScales, key;
    Scratch<uint8_t> weightCodes;
    SamplingScratch sampling;
    RoutingScratch routing;
  };
  // Rows pass through the LM head at most so many at a time (or one a sequence): all of a prompt's would be too much memory.
  static constexpr int64_t leastHeadRowsAtOnce = 64;
  // (row, head) pairs of one sequence and KV head, computed in groups of some at once, and so many splits of their context.
  // Where it is not all of them, `group` names the pairs, whose splits come together in splitResults_.
  struct AttentionUnit {
    int32_t sequence, kvHead, firstPair, pairCount;
    int32_t groupCount, prefetchBlocks;
    int32_t firstSplit, splitCount;
    int32_t group;  // -1: all splits
  };
  struct SplitGroup {
    int64_t resultsAt;  // in splitResults_, [splits, pairs, splitSize]
    int32_t splitCount;
  };
  // A row whose logits are needed: the last of a sequence, one of its drafts', or one that is scored.
  struct HeadRow {
    int32_t row, sequence;
    int32_t scoredTokenId;  // -1: a token is drawn
    int64_t logprobsAt;     // where its log-probabilities go; -1: nowhere
    int64_t sampledAt;      // where the token goes
  };
  struct Linear {
    const Tensor* tensor;
    Panels panels;  // empty for the reference
  };
  // What becomes of a panel's results: they go into rows of their own, onto the hidden state, or through SwiGLU.
  enum class Take : uint8_t { Into, AddToHidden, GateUp };
  // Matrices that the same rows are multiplied with, between two barriers. Everything a thread needs to compute a part of
  // it, without the step: an assistant may be late.
  struct Region {
    Take take;
    LinearVariant variant;
    Linear linears[3];
    LinearTuning tunings[3];
    int matrixCount;
    Activations rows;
    int64_t rowStart, rowCount;
    float* outs[3];     // Into: [rows, matrix rows padded]
    Activations gated;  // GateUp: columns by the matrices' rows
    int64_t panelsPerUnit;
  };
  // The rows of a layer by the experts they chose.
  struct RowsByExpert {
    std::vector<int32_t> chosen;       // [T, expertsPerToken]
    std::vector<float> chosenWeights;  // [T, expertsPerToken]
    std::vector<int32_t> starts;       // [expertCount + 1] entries of an expert
    std::vector<int32_t> rows;         // [T * expertsPerToken] by entry
    std::vector<float> weights;        // the same
    std::vector<int32_t> busy;         // experts with entries
    std::vector<int32_t> next;         // [expertCount] scratch of the sort
  };

  void prepareScratch();
  void prepareExperts();
  void listHeadRows();
  void listAttentionUnits();
  void runThread(int thread);
  void embed(int thread);
  void normalise(int thread, const std::vector<float>& weight, const Activations& out);
  // What a packed variant multiplies with in place of float32, of so many groups of 32 columns.
  void roundGroups(const Activations& rows, int64_t row, int64_t firstGroup, int64_t groupCount) const;
  LinearTuning tuningOf(const Linear& linear, int64_t rowCount) const;
  static void multiplyPanel(const LinearVariant& variant, const Linear& linear, const Activations& rows, int64_t panel,
                            int64_t rowStart, int64_t rowCount, const LinearTuning& tuning, ThreadScratch& scratch, float* out);
  Region regionOf(Take take, const Linear* linears, int linearCount, const Activations& rows, int64_t rowStart,
                  int64_t rowCount) const;
  static void computePanel(const Region& region, int matrix, int64_t panel, int64_t rowStart, int64_t rowCount,
                           ThreadScratch& scratch, float* out, float* spare);
  void takePanel(const Region& region, int matrix, int64_t panel, int64_t rowStart, int64_t rowCount, const float* out) const;
  void walkRegion(int thread, const Region& region, int matrix, int64_t panelBegin, int64_t panelEnd);
  // The thread's share of a region.
  void multiply(int thread, const Region& region);
  bool multiplyAssisted(Region region);
  static void computeUnit(const Region& region, uint32_t index, ThreadScratch& scratch);
  void commitUnit(const Region& region, uint32_t index, ThreadScratch& scratch) const;
  // All rows of the step into rows of their own.
  void multiplyInto(int thread, const Linear* linears, int linearCount, const Activations& rows, float* const* outs);
  void addToHidden(int thread, const Linear& linear, const Activations& rows);
  void rotateAndStore(int thread, int64_t layer);
  void storeKeyValue(int64_t layer, int64_t kvHead, int64_t row, const float* key, const float* value) const;
  void prepareLatents();
  void project(int thread, int64_t layer);
  void projectLatents(int thread, int64_t layer);
  void normaliseLatents(int thread, int64_t layer);
  void rotateAndStoreLatents(int thread, int64_t layer);
  void rotateAndStoreAbsorbed(int thread, int64_t layer);
  void absorbQueries(int thread, int64_t layer);
  void expandAttended(int thread, int64_t layer);
  // Multiplies the rows of each head with its own matrix; `give(head, row, column, out)` gets panelRows results at a time.
  template <typename Give>
  void multiplyHeads(int thread, const std::vector<Tensor>& tensors, const std::vector<Panels>* panels,
                     const Activations& rows, const Give& give);
  void attend(int thread, int64_t layer);
  void attendSplits(const AttentionUnit& unit, int64_t layer, AttentionCall& call, ThreadScratch& scratch);
  void aimAt(const AttentionUnit& unit, int64_t layer, int64_t firstPair, int64_t pairCount, AttentionCall& call) const;
  AttentionTuning attentionTuningOf(int64_t sequence) const;
  void feedForward(int thread, int64_t layer);
  void passExperts(int thread, int64_t layer);
  void routeRows(int thread, int64_t layer);
  void sortByExpert();
  void gatherRows(int thread);
  void multiplyExpertsGateUp(int thread, int64_t layer);
  void multiplyExpertsDown(int thread, int64_t layer);
  Linear expertLinear(int64_t layer, int32_t expert, Tensor MlpMatrices<Tensor>::*tensor,
                      Panels MlpMatrices<Panels>::*panels) const;
  void finish(int thread);
  void computeLogits(int thread, int64_t firstHeadRow, int64_t rowCount);
  void chooseToken(const HeadRow& row, const float* logits, ThreadScratch& scratch);
  void score(const HeadRow& row, int32_t tokenId, const float* logits, ThreadScratch& scratch);
  int64_t headRowsAtOnce() const;
  bool isSplit() const { return step_->attention != AttentionVariant::Reference; }
  bool isPacked() const { return step_->linear.family != LinearFamily::Reference; }

  const Model& model_;
  ThreadTeam& team_;
  const KvCache* kvCache_ = nullptr;
  const PackedModel* packed_ = nullptr;
  Step* step_ = nullptr;
  std::vector<int32_t> positions_, sequences_;  // [T]
  std::vector<HeadRow> headRows_;               // those that a token is drawn from, then scored ones
  std::vector<AttentionUnit> attentionUnits_;
  std::vector<AttentionTuning> attentionTunings_;  // [sequences]
  std::vector<SplitGroup> splitGroups_;
  std::vector<std::atomic<int32_t>> doneSplitCounts_;  // [group]
  Scratch<float> splitResultScratch_;
  float* splitResults_ = nullptr;
  std::vector<std::atomic<int32_t>> nextAttentionUnits_;  // [layer]
  std::vector<std::atomic<int64_t>> nextExpertUnits_;     // [layer]
  RowsByExpert byExpert_;
  std::vector<ThreadScratch> threads_;  // [threads of the team]
  AssistedUnits<Region> units_;
  int64_t mostRows_ = 0;  // of any step so far
  int64_t scoreStride_ = 0, tileStride_ = 0;
  std::atomic<bool> isBroken_{false};

  Scratch<float> hiddenScratch_, cosinesScratch_, sinesScratch_, qScratch_, kScratch_, vScratch_, logitsScratch_;
  Scratch<float> routerLogitsScratch_, queryDownScratch_, keyValueDownScratch_, keyValueUpScratch_;
  ActivationScratch normedScratch_, attendedScratch_, gatedScratch_, routedScratch_, routedGatedScratch_;
  ActivationScratch queryLatentScratch_, keyValueLatentScratch_, ownQueryScratch_, attendedLatentScratch_;
  Scratch<float> latentQueryScratch_;
  float *hidden_ = nullptr, *cosines_ = nullptr, *sines_ = nullptr;  // [T, hiddenSize], [T, ropeSize / 2]
  float *q_ = nullptr, *k_ = nullptr, *v_ = nullptr;                 // [T, heads padded to 32]
  float* logits_ = nullptr;                                          // [head rows at once, vocabulary padded to 32]
  float* routerLogits_ = nullptr;                                    // [T, experts padded to 32]
  float *queryDown_ = nullptr, *keyValueDown_ = nullptr;             // [T, rank (and ropeSize) padded to 32]
  float* keyValueUp_ = nullptr;                                      // [T, heads * upHeadSize padded to 32]
  Activations queryLatent_{}, keyValueLatent_{};                     // [T, rank]
  Activations ownQuery_{}, attendedLatent_{};                        // [heads * T, ownKeySize], [heads * T, keyValueRank]
  float* latentQuery_ = nullptr;                                     // [heads * T, cachedKeySize]
  Activations normed_{}, attended_{}, gated_{};                      // gated_: stride of the layer's own MLP
  Activations routed_{}, routedGated_{};                             // [entries of RowsByExpert, ...]
};

}  // namespace variator
