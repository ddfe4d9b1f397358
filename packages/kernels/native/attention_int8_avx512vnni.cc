// attention.int8 with scores by vpdpbusd (u8 keys x s8 query). The same whole numbers as attention_int8.cc, so the same
// bits. Used only where CPUID shows AVX-512 VNNI.
#define VARIATOR_ATTENTION_VNNI 1
#include "attention_int8.h"

namespace variator {

extern const AttendSplit attendInt8Avx512Vnni;
const AttendSplit attendInt8Avx512Vnni = attendSplitOf<Int8>;

}  // namespace variator
