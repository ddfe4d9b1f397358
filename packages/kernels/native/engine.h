// A model ready to run: mapped weights, packed weights, the thread team, and the two threads that work off the event
// loop. Made by openModel; everything public is called from the event loop's thread.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <mutex>

#include "attention_timing.h"
#include "foreign_cpu.h"
#include "job_thread.h"
#include "kv_cache.h"
#include "linear_timing.h"
#include "model.h"
#include "step.h"
#include "thread_brake.h"
#include "thread_team.h"

namespace variator {

struct Prepared {
  double prepareMs = 0;
  int64_t packedBytes = 0;
  bool isFromCache = false;
};

// Throws NativeFault for a name that is none.
AttentionVariant parseAttention(const std::string& name);

class Engine {
 public:
  Engine(std::unique_ptr<Model> model, int maxThreadCount)
      : model_(std::move(model)), team_(maxThreadCount), runner_(*model_, team_) {
    team_.setAssistance([this](int thread) { runner_.assist(thread); });
  }
  ~Engine() { stop(); }

  const Model& model() const { return *model_; }
  int maxThreadCount() const { return team_.threadCount(); }
  bool isPrepared(LinearVariant linear) const;

  // `settled` is called from another thread, with the fault's sentence or an empty one.
  using Settled = std::function<void(const std::string& fault)>;
  void prepare(LinearVariant linear, PackedCache cache, std::shared_ptr<Prepared> result, Settled settled);
  void run(std::shared_ptr<Step> step, std::shared_ptr<const KvCache> kvCache, Settled settled);
  // Changes the cache's format (KvCache::convert) on the compute thread.
  void convert(std::shared_ptr<KvCache> kvCache, KvFormat format, std::vector<int32_t> blockIds,
               std::shared_ptr<double> convertMs, Settled settled);
  // Times a prepared variant (timeLinears) on the compute thread.
  void time(LinearVariant linear, int threadCount, int64_t rowCount, std::vector<LinearTuning> tunings, int32_t sampleCount,
            double limitMs, std::shared_ptr<LinearTimes> times, Settled settled);
  // The same of attention (timeAttention).
  void timeAttention(AttentionVariant attention, int64_t splitTokens, int threadCount, std::vector<AttentionShapeOfStep> shapes,
                     std::vector<AttentionTuning> tunings, int32_t sampleCount, double limitMs,
                     std::shared_ptr<AttentionTimes> times, Settled settled);
  // Finishes what is under way and joins the threads.
  void stop();

  // One step at a time: set and cleared by addon.cc on the event loop.
  bool isStepRunning = false;

 private:
  std::unique_ptr<Model> model_;
  ThreadTeam team_;
  StepRunner runner_;
  ForeignCpu foreignCpu_;
  ThreadBrake brake_{static_cast<int>(std::thread::hardware_concurrency())};
  mutable std::mutex packedMutex_;
  std::map<LinearFamily, std::shared_ptr<const PackedModel>> packed_;
  JobThread packing_, computing_;
};

// What a step's arrays must keep to, whatever device runs it.
struct StepBounds {
  int64_t vocabularySize, maxPositionCount, blockCount, blockSize;
};
// Throws NativeFault where a step's arrays break their contract; the message names the argument.
void checkBatch(const Step& step, const StepBounds& bounds);
// Throws NativeFault where a step breaks its contract with the engine and the cache; the message names the argument.
void checkStep(const Step& step, const Engine& engine, const KvCache& kvCache);
// The same for a change of format: block ids ascend, and exist before and after it.
void checkConversion(const std::vector<int32_t>& blockIds, KvFormat format, const KvCache& kvCache);

}  // namespace variator
