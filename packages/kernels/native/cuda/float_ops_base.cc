// floatOps() of ../float_ops.h for this library: what it takes from the CPU's engine (reading weights, sampling, scores)
// gives equal bits in every tier, so the plain one will do.
#include "../float_ops.h"

namespace variator {
namespace tier_base {
extern const FloatOps floatOps;
}

const FloatOps& floatOps() { return tier_base::floatOps; }

}  // namespace variator
