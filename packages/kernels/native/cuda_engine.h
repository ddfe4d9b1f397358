// A model on a CUDA device and the one thread that speaks to it: opening, preparing, running and closing happen there, one
// after another. Made by cuda_addon.cc; everything public is called from the event loop's thread, and answers by `settled`.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cuda_library.h"
#include "cuda_model_source.h"
#include "job_thread.h"
#include "step.h"

namespace variator {

class CudaKvCache;

// A Step in the library's form: pointers into the Step's own arrays, and what it keeps otherwise.
class CudaStep {
 public:
  CudaStep(std::shared_ptr<Step> step, const VariatorCudaPath& path);
  std::shared_ptr<Step> step;  // its results are filled in
  VariatorCudaPath path;
  VariatorCudaStep input{};
  VariatorCudaResult result{};

 private:
  std::vector<float> temperatures_, topPs_, minPs_;
  std::vector<int32_t> topKs_;
  std::vector<uint32_t> seeds_;
};

class CudaEngine : public std::enable_shared_from_this<CudaEngine> {
 public:
  using Settled = std::function<void(const std::string& fault)>;

  CudaEngine(std::shared_ptr<const CudaLibrary> library, std::unique_ptr<CudaModelSource> source, VariatorCudaLimits limits)
      : library_(std::move(library)), source_(std::move(source)), limits_(limits) {}
  ~CudaEngine();

  void open(Settled settled);
  void createKvCache(int32_t blockCount, int32_t blockSize, const std::string& kvFormat, std::shared_ptr<CudaKvCache> made,
                     Settled settled);
  void convert(std::shared_ptr<CudaKvCache> kvCache, const std::string& kvFormat, std::vector<int32_t> blockIds,
               std::shared_ptr<double> convertMs, Settled settled);
  void prepare(std::shared_ptr<CudaKvCache> kvCache, const VariatorCudaPath& path, std::shared_ptr<double> prepareMs, Settled settled);
  void run(std::shared_ptr<CudaStep> step, std::shared_ptr<CudaKvCache> kvCache, Settled settled);
  // Finishes what is under way and joins the thread.
  void stop();

  int64_t vocabularySize() const { return source_->source.vocabularySize; }
  int64_t maxPositionCount() const { return source_->source.maxPositionCount; }
  const VariatorCudaLimits& limits() const { return limits_; }
  int64_t weightBytes() const { return weightBytes_; }
  bool isDeviceLost() const { return isDeviceLost_; }

  // One step at a time: set and cleared by cuda_addon.cc on the event loop.
  bool isStepRunning = false;

 private:
  friend class CudaKvCache;
  void give(std::function<void()> work, Settled settled);
  void closeKvCache(VariatorCudaKvCache* kvCache);

  std::shared_ptr<const CudaLibrary> library_;
  std::unique_ptr<CudaModelSource> source_;
  VariatorCudaLimits limits_;
  VariatorCudaModel* model_ = nullptr;
  int64_t weightBytes_ = 0;
  std::atomic<bool> isDeviceLost_{false};
  bool isStopped_ = false;
  JobThread thread_;
};

// Closed on the engine's thread once nothing uses it.
class CudaKvCache {
 public:
  explicit CudaKvCache(std::shared_ptr<CudaEngine> engine) : engine_(std::move(engine)) {}
  ~CudaKvCache();
  const CudaEngine* engine() const { return engine_.get(); }
  int64_t blockCount = 0, blockSize = 0, blockBytes = 0;
  VariatorCudaKvCache* kvCache = nullptr;

 private:
  std::shared_ptr<CudaEngine> engine_;
};

}  // namespace variator
