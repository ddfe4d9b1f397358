/**
 * What to believe of kernels before they ran: the roofline, corrected by what relatives with the same linear layers or the same attention measured.
 * Called by the service for every fit. Pure.
 */
import { type Envelope, type ExecutionPath, kernelsId } from '@variator/kernels/execution-path';
import type { StepTimeFit } from '@variator/scheduler/step-time';
import { LEAST_SAMPLE_COUNT } from './fit-step-time.ts';
import { rooflinePrior, type StepTimePrior } from './roofline-prior.ts';

export interface Relative {
  readonly path: ExecutionPath;
  readonly fit: StepTimeFit;
}

type Term = keyof StepTimeFit['betaMs'];
const LINEAR_TERMS: readonly Term[] = ['perStep', 'perToken', 'perTokenAboveKnee'];
const ATTENTION_TERMS: readonly Term[] = [
  'perDecodeSequence',
  'perPrefillSequence',
  'perDecodeContextToken',
  'perPrefillAttention',
];

/**
 * Linear layers' terms carry over from a path with the same linear layers, the others' from one with the same attention: how
 * far each was off its own roofline, so that other thread counts keep their proportion. A path never is its own relative.
 */
export function priorFor(
  envelope: Envelope,
  path: ExecutionPath,
  relatives: readonly Relative[],
): StepTimePrior {
  const roofline = rooflinePrior(envelope, path);
  const known = relatives.filter(
    ({ path: other, fit }) => fit.sampleCount >= LEAST_SAMPLE_COUNT && kernelsId(other) !== kernelsId(path),
  );
  const nearest = (isAlike: (other: ExecutionPath) => boolean): Relative | undefined =>
    known
      .filter(({ path: other }) => isAlike(other))
      .sort(
        (a, b) =>
          threadsApart(path, a.path) - threadsApart(path, b.path) || b.fit.sampleCount - a.fit.sampleCount,
      )[0];
  const linear = nearest((other) => other.linear === path.linear);
  const attention = nearest((other) => other.attention === path.attention);

  const carried = (relative: Relative | undefined, terms: readonly Term[]): [Term, number][] => {
    if (relative === undefined) return [];
    const own = rooflinePrior(envelope, relative.path);
    return terms.flatMap((term): [Term, number][] => {
      const measured = relative.fit.betaMs[term];
      // A term at zero may only never have been seen; the roofline knows that it costs something.
      if (!(measured > 0 && own.betaMs[term] > 0)) return [];
      return [[term, (measured * roofline.betaMs[term]) / own.betaMs[term]]];
    });
  };
  return {
    kneeTokens: linear?.fit.kneeTokens ?? roofline.kneeTokens,
    betaMs: {
      ...roofline.betaMs,
      ...Object.fromEntries([...carried(linear, LINEAR_TERMS), ...carried(attention, ATTENTION_TERMS)]),
    },
  };
}

const threadsApart = (path: ExecutionPath, other: ExecutionPath): number =>
  Math.abs(Math.log(path.threadCount / other.threadCount));
