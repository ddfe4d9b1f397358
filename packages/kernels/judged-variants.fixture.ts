/** One linear variant of each numerics that stays near float64: others of these kinds give the same bits (native-linear.test.ts). */
import { fastestOfEachKind, linearVariantsFor, variantOf } from './catalogue.ts';

export const judgedVariants = (features: readonly string[]) =>
  fastestOfEachKind(linearVariantsFor(features)).filter((id) =>
    ['int8', 'int8-residual', 'float32'].includes(variantOf(id).kind),
  );
