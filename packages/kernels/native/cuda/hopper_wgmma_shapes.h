// The wgmma.mma_async instructions one by one: inline PTX for each N the kernels use, bf16 (k16) and e4m3 (k32), A from
// shared memory or from registers. Included by hopper_wgmma.h alone, and only when nvcc compiles for sm_90a; the emulated
// device computes the same through hopper_emulated_wgmma.cc. PTX ISA, "wgmma.mma_async": the accumulators are N/2 float32
// registers, scale-d is a predicate, imm-scale-a and imm-scale-b are 1, imm-trans 0 is K-major and 1 is M/N-major (bf16 only).
#pragma once
#include <cstdint>

namespace variator::cuda::hopper::ptx {

#define VARIATOR_WGMMA_NAMES_4 "%0,%1,%2,%3"
#define VARIATOR_WGMMA_NAMES_8 \
  VARIATOR_WGMMA_NAMES_4 ",%4,%5,%6,%7"
#define VARIATOR_WGMMA_NAMES_12 \
  VARIATOR_WGMMA_NAMES_8 ",%8,%9,%10,%11"
#define VARIATOR_WGMMA_NAMES_16 \
  VARIATOR_WGMMA_NAMES_12 ",%12,%13,%14,%15"
#define VARIATOR_WGMMA_NAMES_24 \
  VARIATOR_WGMMA_NAMES_16 ",%16,%17,%18,%19,%20,%21,%22,%23"
#define VARIATOR_WGMMA_NAMES_32 \
  VARIATOR_WGMMA_NAMES_24 ",%24,%25,%26,%27,%28,%29,%30,%31"
#define VARIATOR_WGMMA_NAMES_48 \
  VARIATOR_WGMMA_NAMES_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define VARIATOR_WGMMA_NAMES_64 \
  VARIATOR_WGMMA_NAMES_48 ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define VARIATOR_WGMMA_NAMES_96 \
  VARIATOR_WGMMA_NAMES_64 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79" \
  ",%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define VARIATOR_WGMMA_NAMES_128 \
  VARIATOR_WGMMA_NAMES_96 ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111" \
  ",%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"

#define VARIATOR_WGMMA_OUT_4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define VARIATOR_WGMMA_OUT_8(d, i) VARIATOR_WGMMA_OUT_4(d, i), VARIATOR_WGMMA_OUT_4(d, i + 4)
#define VARIATOR_WGMMA_OUT_12(d, i) VARIATOR_WGMMA_OUT_8(d, i), VARIATOR_WGMMA_OUT_4(d, i + 8)
#define VARIATOR_WGMMA_OUT_16(d, i) VARIATOR_WGMMA_OUT_8(d, i), VARIATOR_WGMMA_OUT_8(d, i + 8)
#define VARIATOR_WGMMA_OUT_24(d, i) VARIATOR_WGMMA_OUT_16(d, i), VARIATOR_WGMMA_OUT_8(d, i + 16)
#define VARIATOR_WGMMA_OUT_32(d, i) VARIATOR_WGMMA_OUT_16(d, i), VARIATOR_WGMMA_OUT_16(d, i + 16)
#define VARIATOR_WGMMA_OUT_48(d, i) VARIATOR_WGMMA_OUT_32(d, i), VARIATOR_WGMMA_OUT_16(d, i + 32)
#define VARIATOR_WGMMA_OUT_64(d, i) VARIATOR_WGMMA_OUT_32(d, i), VARIATOR_WGMMA_OUT_32(d, i + 32)
#define VARIATOR_WGMMA_OUT_96(d, i) VARIATOR_WGMMA_OUT_64(d, i), VARIATOR_WGMMA_OUT_32(d, i + 64)
#define VARIATOR_WGMMA_OUT_128(d, i) VARIATOR_WGMMA_OUT_64(d, i), VARIATOR_WGMMA_OUT_64(d, i + 64)

template <int N>
struct Wgmma;

// P0..P6 are the positions of the operands after the R accumulators.
#define VARIATOR_WGMMA_SHAPE(N, R, P0, P1, P2, P3, P4, P5, P6)                                                            \
  template <>                                                                                                             \
  struct Wgmma<N> {                                                                                                       \
    template <int transposeA, int transposeB>                                                                             \
    static DEVICE void sharedBf16(float (&d)[R], uint64_t descA, uint64_t descB, int scaleD) {        \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #P2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N                   \
                   "k16.f32.bf16.bf16 {" VARIATOR_WGMMA_NAMES_##R "}, %" #P0 ", %" #P1 ", p, 1, 1, %" #P3 ", %" #P4       \
                   ";\n}\n"                                                                                               \
                   : VARIATOR_WGMMA_OUT_##R(d, 0)                                                                         \
                   : "l"(descA), "l"(descB), "r"(scaleD), "n"(transposeA), "n"(transposeB));                              \
    }                                                                                                                     \
    template <int transposeB>                                                                                             \
    static DEVICE void registersBf16(float (&d)[R], const uint32_t (&a)[4], uint64_t descB,           \
                                                         int scaleD) {                                                    \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #P5 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N                   \
                   "k16.f32.bf16.bf16 {" VARIATOR_WGMMA_NAMES_##R "}, {%" #P0 ",%" #P1 ",%" #P2 ",%" #P3 "}, %" #P4        \
                   ", p, 1, 1, %" #P6 ";\n}\n"                                                                            \
                   : VARIATOR_WGMMA_OUT_##R(d, 0)                                                                         \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(descB), "r"(scaleD), "n"(transposeB));               \
    }                                                                                                                     \
    static DEVICE void sharedE4m3(float (&d)[R], uint64_t descA, uint64_t descB, int scaleD) {        \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #P2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N                   \
                   "k32.f32.e4m3.e4m3 {" VARIATOR_WGMMA_NAMES_##R "}, %" #P0 ", %" #P1 ", p, 1, 1;\n}\n"                  \
                   : VARIATOR_WGMMA_OUT_##R(d, 0)                                                                         \
                   : "l"(descA), "l"(descB), "r"(scaleD));                                                                \
    }                                                                                                                     \
  };

VARIATOR_WGMMA_SHAPE(8, 4, 4, 5, 6, 7, 8, 9, 10)
VARIATOR_WGMMA_SHAPE(16, 8, 8, 9, 10, 11, 12, 13, 14)
VARIATOR_WGMMA_SHAPE(24, 12, 12, 13, 14, 15, 16, 17, 18)
VARIATOR_WGMMA_SHAPE(32, 16, 16, 17, 18, 19, 20, 21, 22)
VARIATOR_WGMMA_SHAPE(48, 24, 24, 25, 26, 27, 28, 29, 30)
VARIATOR_WGMMA_SHAPE(64, 32, 32, 33, 34, 35, 36, 37, 38)
VARIATOR_WGMMA_SHAPE(96, 48, 48, 49, 50, 51, 52, 53, 54)
VARIATOR_WGMMA_SHAPE(128, 64, 64, 65, 66, 67, 68, 69, 70)
VARIATOR_WGMMA_SHAPE(192, 96, 96, 97, 98, 99, 100, 101, 102)
VARIATOR_WGMMA_SHAPE(256, 128, 128, 129, 130, 131, 132, 133, 134)

#undef VARIATOR_WGMMA_SHAPE

}  // namespace variator::cuda::hopper::ptx
