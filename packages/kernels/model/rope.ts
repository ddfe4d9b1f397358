/**
 * Inverse frequencies of rotary position embedding with their scaling, computed in float64 and rounded once to float32
 * (in bfloat16 they would be wrong for good). Called by the model readers; pure. The rules are those of RoFormer
 * (arXiv 2104.09864), linear interpolation (arXiv 2306.15595) and Llama 3.1's by-wavelength rule.
 */
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
  /** One divisor per frequency, [headSize / 2], as GGUF's `rope_freqs.weight` holds them. */
  | { readonly kind: 'divisors'; readonly divisors: readonly number[] };

/** [headSize / 2] */
export function ropeInverseFrequencies(headSize: number, theta: number, scaling: RopeScaling): Float32Array {
  return Float32Array.from({ length: headSize / 2 }, (_, pair) =>
    scaled(1 / theta ** ((2 * pair) / headSize), pair, scaling),
  );
}

function scaled(frequency: number, pair: number, scaling: RopeScaling): number {
  switch (scaling.kind) {
    case 'none':
      return frequency;
    case 'linear':
      return frequency / scaling.factor;
    case 'divisors':
      return frequency / (scaling.divisors[pair] ?? 1);
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
