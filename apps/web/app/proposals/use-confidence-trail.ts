/**
 * The interval after each pair, as it was seen closing: the API tells only the present one, so what this page has seen
 * of a rollout is kept while it is open. Never invents an interval it was not told.
 */
import { useEffect, useState } from 'react';
import type { RolloutView } from '../../api.ts';

export interface TrailPoint {
  readonly pairCount: number;
  readonly mean: number;
  readonly low: number;
  readonly high: number;
}

export function useConfidenceTrail({ rolloutId, pairs, confidence }: RolloutView): readonly TrailPoint[] {
  const [seen, setSeen] = useState<{ readonly rolloutId: string; readonly points: readonly TrailPoint[] }>({
    rolloutId,
    points: [],
  });
  const pairCount = pairs.length;
  const { mean, low, high } = confidence ?? { mean: null, low: null, high: null };
  useEffect(() => {
    setSeen((before) => {
      const kept = before.rolloutId === rolloutId ? before.points : [];
      const others = kept.filter((point) => point.pairCount < pairCount);
      const points = mean === null ? others : [...others, { pairCount, mean, low, high }];
      return { rolloutId, points };
    });
  }, [rolloutId, pairCount, mean, low, high]);
  return seen.rolloutId === rolloutId ? seen.points : [];
}
