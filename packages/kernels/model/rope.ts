/**
 * Inverse frequencies of rotary position embedding with their scaling, computed in float64 and rounded once to float32
 * (in bfloat16 they would be wrong for good). Called by the model readers; pure. The rules are those of RoFormer
 * (arXiv 2104.09864), linear interpolation (arXiv 2306.15595), YaRN (arXiv 2309.00071) and Llama 3.1's by-wavelength rule.
 */
import { ModelError } from './model-error.ts';

/** An angle of a hundred million positions at this frequency is still a number; real frequencies end at 1. */
const MOST_FREQUENCY = 1e6;
const MOST_ATTENTION_FACTOR = 100;

export type RopeScaling =
  | { readonly kind: 'none' }
  | { readonly kind: 'linear'; readonly factor: number }
  | {
      readonly kind: 'llama3';
      readonly factor: number;
      readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number;
      readonly originalMaxPositionCount: number;
    }
  | {
      readonly kind: 'yarn';
      readonly factor: number;
      /** Turns within the original context above which a pair keeps its frequency, and below which it is interpolated. */
      readonly betaFast: number;
      readonly betaSlow: number;
      readonly originalMaxPositionCount: number;
      /** Whether the border pairs are rounded outwards to whole ones. */
      readonly isTruncated: boolean;
    }
  /** One divisor per frequency, [headSize / 2], as GGUF's `rope_freqs.weight` holds them. */
  | { readonly kind: 'divisors'; readonly divisors: readonly number[] };

/** @throws ModelError where numbers that are each allowed make a rotation that is none */
export function checkRope(
  file: string,
  rope: { readonly ropeInverseFrequencies: Float32Array; readonly ropeAttentionFactor: number },
): void {
  const odd = rope.ropeInverseFrequencies.find(
    (frequency) => !(frequency >= 0 && frequency <= MOST_FREQUENCY),
  );
  if (odd !== undefined) throw new ModelError(file, `its rope comes to a frequency of ${odd}.`);
  const factor = Math.fround(rope.ropeAttentionFactor);
  if (!(factor > 0 && factor <= MOST_ATTENTION_FACTOR)) {
    throw new ModelError(file, `its rope comes to an attention factor of ${factor}.`);
  }
}

/** [headSize / 2] */
export function ropeInverseFrequencies(headSize: number, theta: number, scaling: RopeScaling): Float32Array {
  const keptShare = scaling.kind === 'yarn' ? yarnKeptShare(headSize, theta, scaling) : () => 1;
  return Float32Array.from({ length: headSize / 2 }, (_, pair) =>
    scaled(1 / theta ** ((2 * pair) / headSize), pair, scaling, keptShare),
  );
}

/** What YaRN multiplies cosines and sines by, so that scores keep their spread over the longer context. */
export function yarnAttentionFactor(factor: number, scale = 1): number {
  return factor <= 1 ? 1 : 0.1 * scale * Math.log(factor) + 1;
}

function scaled(
  frequency: number,
  pair: number,
  scaling: RopeScaling,
  keptShare: (pair: number) => number,
): number {
  switch (scaling.kind) {
    case 'none':
      return frequency;
    case 'linear':
      return frequency / scaling.factor;
    case 'divisors':
      return frequency / (scaling.divisors[pair] ?? 1);
    case 'yarn': {
      const share = keptShare(pair);
      return ((1 - share) * frequency) / scaling.factor + share * frequency;
    }
    case 'llama3': {
      const { factor, lowFrequencyFactor: low, highFrequencyFactor: high } = scaling;
      // How often the pair turns within the context that the model was first trained on.
      const turns = (scaling.originalMaxPositionCount * frequency) / (2 * Math.PI);
      if (turns < low) return frequency / factor;
      if (turns > high) return frequency;
      const share = (turns - low) / (high - low);
      return ((1 - share) * frequency) / factor + share * frequency;
    }
  }
}

/** How much of its own frequency each pair keeps: 1 for fast pairs, 0 for slow ones, a ramp by index between. */
function yarnKeptShare(
  headSize: number,
  theta: number,
  scaling: Extract<RopeScaling, { kind: 'yarn' }>,
): (pair: number) => number {
  const pairThatTurns = (turns: number) =>
    (headSize * Math.log(scaling.originalMaxPositionCount / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
  const [first, last] = [pairThatTurns(scaling.betaFast), pairThatTurns(scaling.betaSlow)];
  const low = Math.max(scaling.isTruncated ? Math.floor(first) : first, 0);
  const high = Math.min(scaling.isTruncated ? Math.ceil(last) : last, headSize - 1);
  const width = low === high ? 0.001 : high - low;
  return (pair) => 1 - Math.min(1, Math.max(0, (pair - low) / width));
}
