// Runs steps of one model on the device: embedding, layers, LM head, sampling, eagerly or by a graph captured for a number
// of decoding sequences. Called by variator_cuda.cc, one call at a time.
#pragma once
#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "../sampling.h"
#include "attention.h"
#include "device_model.h"
#include "kv_cache.h"
#include "linear_layers.h"
#include "step_plan.h"

namespace variator::cuda {

// Throws NativeFault for values that no kernel has.
void checkPath(const VariatorCudaPath& path);

class Engine {
 public:
  Engine(const VariatorCudaModelSource& source, const VariatorCudaLimits& limits);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  const DeviceModel& model() const { return model_; }
  // Of the model and of what paths have made of its matrices.
  int64_t weightBytes() const { return model_.weightBytes + linear_->codeBytes(); }
  void prepare(const KvCache& kvCache, const VariatorCudaPath& path);
  void run(const KvCache& kvCache, const VariatorCudaPath& path, const VariatorCudaStep& step, VariatorCudaResult& result);
  // Brings a cache of this model into another format; what was prepared on it stays so.
  void convert(KvCache& kvCache, KvFormat format, const std::vector<int32_t>& blockIds);
  // Forgets what was prepared on a cache that is about to go.
  void forget(const KvCache& kvCache);

 private:
  struct Prepared {
    DeviceArray<float> partials;
    std::map<int32_t, Graph> graphs;  // by bucket
    std::map<int32_t, int32_t> launchCounts;
  };
  // What the launches of a step depend on, beside the words on the device.
  struct Work {
    const KvCache* kvCache;
    const VariatorCudaPath* path;
    float* partials;
    int32_t rowCount, decodeItemCount, chunkItemCount, chunkRowTiles, headRowCount;
  };
  using Key = std::tuple<const KvCache*, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t>;
  static Key keyOf(const KvCache& kvCache, const VariatorCudaPath& path);

  void forward(const Work& work);
  void multiply(const Work& work, MatrixRole role, int32_t layer, const Bf16* x, void* out, Take take, int32_t rowCount);
  void attendRows(const Work& work, int32_t layer);
  void upload(int32_t sequenceCount);
  // Rules, scores and whatever the device's sampler does not do, from logits read back.
  void finishOnHost(const VariatorCudaStep& step, const StepPlan& plan, VariatorCudaResult& result);
  int32_t* words(int64_t offset) const { return deviceWords_.data() + offset; }

  OwnedStream stream_;
  OwnedEvent before_, after_;
  VariatorCudaLimits limits_;
  DeviceModel model_;
  std::unique_ptr<LinearLayers> linear_;
  StepLayout layout_;
  int32_t multiprocessorCount_;
  std::map<Key, Prepared> prepared_;
  int32_t launchCount_ = 0;

  DeviceArray<int32_t> deviceWords_, drawn_;  // drawn_: [mostHeadRows]
  DeviceArray<uint32_t> decodeArrivals_;      // zeros, once a path that decodes by wgmma is prepared
  DeviceArray<float> residual_, cosines_, sines_, logits_;
  DeviceArray<Bf16> normed_, qkv_, attended_, gateUp_, gated_, headNormed_;
  HostArray<int32_t> hostWords_, hostDrawn_;
  HostArray<float> hostLogits_;  // [mostHeadRows, vocabularySize]
  SamplingScratch scratch_;
};

}  // namespace variator::cuda
