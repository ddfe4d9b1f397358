// attend of attention.h: attention.cuh over keys and values in e4m3.
#include "attention.cuh"

namespace variator::cuda {

void attendFp8(const AttentionArguments& arguments, int32_t rowTiles, Stream stream) {
  attention::runHeads<attention::Fp8Kv>(arguments, rowTiles, stream);
}

}  // namespace variator::cuda
