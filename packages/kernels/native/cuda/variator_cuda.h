/* The CUDA worker's native part as a plain C library: libvariator_cuda.so, and libvariator_cuda_emulated.so for tests (the
 * same kernels on the emulated device; VariatorCudaDevice.isEmulated says so). Called by the Node addon, which opens it by
 * dlopen, and by the runner. Names and order are those of native.ts and native/model.h.
 *
 * Every function returns 0, or another number after which variatorCudaLastError gives a sentence. Nothing is launched
 * before all arguments are checked. One step at a time a model; a model and its caches belong to one thread at a time.
 * Refused with a sentence: experts, latents, head sizes other than 16, 32, 64, 96, 128, KV formats other than bf16 and fp8. */
#ifndef VARIATOR_CUDA_H
#define VARIATOR_CUDA_H
#include <stdint.h>

#if defined(__cplusplus)
extern "C" {
#endif

/* Changes with every change of a struct or a meaning below. */
#define VARIATOR_CUDA_ABI 5

typedef struct VariatorCudaModel VariatorCudaModel;
typedef struct VariatorCudaKvCache VariatorCudaKvCache;

typedef struct {
  char name[128];
  int32_t isEmulated;
  int32_t computeCapability; /* 90: 9.0 */
  int32_t multiprocessorCount;
  int64_t memoryBytes, freeBytes, l2Bytes;
  int32_t hasGemmLibrary; /* cuBLASLt was found by its name */
} VariatorCudaDevice;

/* NaN or -1 where the driver does not say. From NVML, by dlopen. */
typedef struct {
  double smClockMhz, memoryClockMhz, powerWatts, energyJoules /* since the driver was loaded */, temperatureCelsius;
  int64_t memoryUsedBytes;
} VariatorCudaTelemetry;

/* Where a tensor [rows, columns] lies (a vector has one row). dtype: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K
 * or Q6_K; matrices are rounded to bf16 on the device. file NULL: the model has none. */
typedef struct {
  const char *name, *file, *dtype;
  int64_t offset, byteLength, rows, columns;
} VariatorCudaTensor;

typedef struct {
  VariatorCudaTensor inputNorm, q, k, v, o, qBias, kBias, vBias, qNorm, kNorm, postAttentionNorm, gate, up, down;
} VariatorCudaLayer;

typedef struct {
  int64_t layerCount, hiddenSize, intermediateSize, headCount, kvHeadCount, headSize, vocabularySize, maxPositionCount;
  float rmsNormEpsilon;
  const float* ropeInverseFrequencies; /* [headSize / 2] */
  float ropeAttentionFactor;
  const int32_t* windowTokens; /* [layerCount] 0: all */
  int32_t isRopeInterleaved;
  int32_t expertCount, latentRank; /* 0: none; anything else is refused */
  VariatorCudaTensor embedding, finalNorm, head; /* head: the embedding's own source where they are tied */
  const VariatorCudaLayer* layers;               /* [layerCount] */
} VariatorCudaModelSource;

/* What a step may need at most; memory is taken for it when the model is opened. */
typedef struct {
  int32_t mostTokens;    /* of a step */
  int32_t mostSequences; /* of a step */
  int32_t mostHeadRows;  /* rows that a token is drawn from or that are scored, of a step; at least mostSequences */
  int32_t mostBlocksPerSequence;
} VariatorCudaLimits;

/* Which kernels a step runs. Only `linear`, `weights`, `kvFormat`, `splitTokens` and `decode` decide bits. */
enum { VARIATOR_CUDA_LINEAR_MMA = 0, /* one kernel for every number of rows: batch-invariant */
       VARIATOR_CUDA_LINEAR_GEMV = 1, /* steps of up to 8 rows by GEMV: the same within rounding; a row's bits depend on that */
       VARIATOR_CUDA_LINEAR_WGMMA = 2, /* and steps of 128 rows or more by Hopper's wgmma, chunks' attention too for heads of 64 and 128 */
       VARIATOR_CUDA_LINEAR_LIBRARY = 3, /* as GEMV, but more rows than 8 by cuBLASLt, where it is installed; weights in bf16 */
       VARIATOR_CUDA_LINEAR_SKINNY = 4 /* as WGMMA, and steps of 9 to 64 rows by wgmma with the operands exchanged */ };
/* What the matrices are held as. Codes are made of bf16 on the device when a path first needs them, and stay. */
enum { VARIATOR_CUDA_WEIGHTS_BF16 = 0,
       VARIATOR_CUDA_WEIGHTS_E4M3 = 1, /* a scale a row; activations stay bf16, but whatever wgmma multiplies is e4m3; columns in multiples of 16 */
       VARIATOR_CUDA_WEIGHTS_INT4 = 2  /* a scale for 128 columns, the LM head in e4m3; not by wgmma; columns in multiples of 32 */ };
/* fp8: e4m3, a scale for each token and KV head; read by mma alone, so that wgmma's attention is for bf16. */
enum { VARIATOR_CUDA_KV_BF16 = 0, VARIATOR_CUDA_KV_FP8 = 1 };
/* WGMMA: decoding rows by Hopper's wgmma, for heads of 64 and 128, at most 16 to a KV head, and a cache in bf16; refused elsewhere. */
enum { VARIATOR_CUDA_DECODE_MMA = 0, VARIATOR_CUDA_DECODE_WGMMA = 1 };
typedef struct {
  int32_t linear;
  int32_t weights;
  int32_t kvFormat;        /* of the cache that it is prepared for; a step's cache must be in it by then */
  int32_t splitTokens;     /* 64, 128, 256 or 512: context tokens that attention sums at a stretch */
  int32_t mmaTile;         /* of linear layers: 0 by the number of rows, else 1..variatorCudaMmaTileCount() */
  int32_t gemvRowsPerWarp; /* 1, 2 or 4; codes: 2 at most */
  int32_t gemvLoads;       /* 16-byte loads in flight of each row: 4 or 8; codes: 4 */
  int32_t usesGraphs;      /* decode steps by graphs, padded to 1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256 sequences */
  int32_t decode;          /* which attention a sequence's single token goes by */
} VariatorCudaPath;

/* StepInput of native.ts. n sequences, T tokens. */
typedef struct {
  int32_t sequenceCount, tokenCount, blockTableStride;
  const int32_t* tokenIds;       /* [T] */
  const int32_t* tokenStarts;    /* [n + 1] */
  const int32_t* contextLengths; /* [n] tokens already in the KV cache */
  const int32_t* blockTables;    /* [n, blockTableStride] */
  const uint8_t* isSampled;      /* [n] */
  const int32_t* draftCounts;    /* [n] or NULL */
  const float *temperatures, *topPs, *minPs; /* [n] */
  const int32_t* topKs;                      /* [n] */
  const uint32_t* seeds;                     /* [n, 2] low, high */
  /* Logit rules; repetitionPenalties NULL: no sequence has any. */
  const float *repetitionPenalties, *frequencyPenalties, *presencePenalties; /* [n] */
  const int32_t *countStarts /* [n + 1] */, *countedTokenIds, *tokenCounts;
  const int32_t *biasStarts /* [n + 1] */, *biasTokenIds;
  const float* biases;
  /* Scores; topCounts NULL: nobody wants any. */
  const int32_t *topCounts /* [n] */, *scoredTokenIds /* [T] */;
  int32_t isLogitsWanted;
} VariatorCudaStep;

/* Memory is the caller's; NULL where it is not wanted. */
typedef struct {
  int32_t* sampledTokenIds; /* [sum of 1 + draftCounts] */
  float* logits;            /* [n, vocabularySize], read where isLogitsWanted */
  int32_t* logprobTokenIds; /* [variatorCudaLogprobCount()] */
  float* logprobs;
  /* Filled in: */
  double deviceMs;      /* between two events around the step's launches */
  double hostMs;        /* the whole call */
  int32_t launchCount;  /* kernels */
  int32_t isGraph;
  int32_t paddedCount;  /* sequences that the graph was captured for */
} VariatorCudaResult;

int32_t variatorCudaAbi(void);
/* Of the handle (a model or a cache), or with NULL of the calling thread's last failed call without one. Never NULL. */
const char* variatorCudaLastError(const void* handle);

int32_t variatorCudaDevice(VariatorCudaDevice* device);
int32_t variatorCudaTelemetry(VariatorCudaTelemetry* telemetry);
int32_t variatorCudaMmaTileCount(void);

/* Maps the files, rounds matrices to bf16 and moves them to the device. */
int32_t variatorCudaOpenModel(const VariatorCudaModelSource* source, const VariatorCudaLimits* limits, VariatorCudaModel** model);
/* Of everything that was made of weights so far. */
int32_t variatorCudaWeightBytes(const VariatorCudaModel* model, int64_t* bytes);
int32_t variatorCudaCloseModel(VariatorCudaModel* model);

/* blockCount blocks of 16 tokens. kvFormat: bf16 or fp8. */
int32_t variatorCudaCreateKvCache(VariatorCudaModel* model, int32_t blockCount, int32_t blockSize, const char* kvFormat,
                                  VariatorCudaKvCache** kvCache);
int32_t variatorCudaKvBlockBytes(const VariatorCudaKvCache* kvCache, int64_t* bytes);
/* Blocks that the cache's memory holds in a format. */
int32_t variatorCudaKvBlockCount(const VariatorCudaKvCache* kvCache, const char* kvFormat, int32_t* blockCount);
/* Changes the format. Blocks in blockIds [count] (ascending, below both formats' counts) keep their ids and, rounded, their
 * contents; all others are lost. What was prepared on the cache stays so. */
int32_t variatorCudaConvertKvCache(VariatorCudaKvCache* kvCache, const char* kvFormat, const int32_t* blockIds, int32_t count, double* convertMs);
int32_t variatorCudaCloseKvCache(VariatorCudaKvCache* kvCache);

/* Makes the path ready on this cache: its weights' codes, and the graphs of decode steps. Idempotent. Steps run on prepared paths alone. */
int32_t variatorCudaPrepare(VariatorCudaModel* model, VariatorCudaKvCache* kvCache, const VariatorCudaPath* path, double* prepareMs);
/* Whether a row's bits depend on the row alone. */
int32_t variatorCudaIsBatchInvariant(const VariatorCudaPath* path, int32_t* isBatchInvariant);

/* Entries of a step's logprobs: for each scored row and sampled token of a sequence that wants them, 1 + its top count. */
int32_t variatorCudaLogprobCount(const VariatorCudaStep* step, int64_t* count);
int32_t variatorCudaRunStep(VariatorCudaModel* model, VariatorCudaKvCache* kvCache, const VariatorCudaPath* path,
                            const VariatorCudaStep* step, VariatorCudaResult* result);

#if defined(__cplusplus)
}
#endif
#endif
