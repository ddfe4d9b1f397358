// attend of attention.h: attention.cuh over keys and values in bf16.
#include "attention.cuh"

namespace variator::cuda {

bool isAttentionHeadSize(int64_t headSize) {
  return headSize == 16 || headSize == 32 || headSize == 64 || headSize == 96 || headSize == 128;
}

void attend(const AttentionArguments& arguments, int32_t rowTiles, Stream stream) {
  if (arguments.splitTokens < attentionTileTokens || arguments.splitTokens % attentionTileTokens != 0) {
    throw NativeFault("attend: splitTokens must be a multiple of 64");
  }
  if (arguments.kv.fp8Keys != nullptr) attendFp8(arguments, rowTiles, stream);
  else attention::runHeads<attention::Bf16Kv>(arguments, rowTiles, stream);
}

}  // namespace variator::cuda
