/**
 * The requests of a phase of adaptive-plan.ts, drawn from a seed: the same for every path that the phase is measured on. Pure
 * but for the tokenizer that turns its words into tokens.
 */
import type { SequenceSpec } from '@variator/scheduler/sequence';
import { generator, words } from '../../../apps/engine/cli/workload.ts';
import type { AdaptivePhase } from './adaptive-plan.ts';
import { plainSequence } from './in-process-worker.ts';

export interface PlannedSequence {
  readonly spec: SequenceSpec;
  /** Milliseconds after the phase began; null: when a client is free. */
  readonly atMs: number | null;
}

type Encode = (text: string) => readonly number[];

/** More than any path could serve: closed loops take from the front. */
const MOST_PER_SECOND = 70;

export function trafficOf(phase: AdaptivePhase, seed: number, encode: Encode): PlannedSequence[] {
  const random = generator(seed * 1000 + phase.name.length * 31 + phase.durationMs);
  const documents = Array.from({ length: phase.documents?.count ?? 0 }, () =>
    wordTokens(phase.documents?.tokens ?? 0, random, encode),
  );
  const times = phase.arrivals.kind === 'open' ? arrivalTimes(phase, phase.arrivals, random) : null;
  const count = times?.length ?? clientsOf(phase) + Math.ceil((phase.durationMs / 1000) * MOST_PER_SECOND);
  return Array.from({ length: count }, (_, index) => {
    const [least, most] = phase.promptTokens;
    const ownTokens = least + Math.floor(random() * (most - least + 1));
    const document = documents[Math.floor(random() * documents.length)] ?? [];
    const own =
      phase.text === 'agent' ? agentTokens(ownTokens, random, encode) : wordTokens(ownTokens, random, encode);
    const { median, sigma, most: longest } = phase.answerTokens;
    const drawn = Math.round(median * Math.exp(sigma * normal(random)));
    const spec = plainSequence(
      `${phase.name}-${index}`,
      [...document, ...own],
      Math.min(longest, Math.max(2, drawn)),
    );
    const sampling = {
      temperature: phase.temperature,
      topP: 1,
      topK: 0,
      seed: Math.floor(random() * 2 ** 31),
    };
    const objectives = phase.objectives ?? spec.objectives;
    return { spec: { ...spec, sampling, objectives }, atMs: times?.[index] ?? null };
  });
}

export const clientsOf = ({ arrivals }: AdaptivePhase): number =>
  arrivals.kind === 'closed' ? arrivals.clientCount : 0;

function arrivalTimes(
  { durationMs }: AdaptivePhase,
  { perSecond, gapCv }: { readonly perSecond: number; readonly gapCv: number },
  random: () => number,
): number[] {
  const times: number[] = [];
  const shape = 1 / gapCv ** 2;
  for (let at = 0; ; ) {
    at += (gamma(shape, random) * 1000) / (perSecond * shape);
    if (at >= durationMs) return times;
    times.push(at);
  }
}

/** Marsaglia and Tsang 2000; below a shape of 1 by one more, scaled. Scale 1. */
export function gamma(shape: number, random: () => number): number {
  if (shape < 1) return gamma(shape + 1, random) * (1 - random()) ** (1 / shape);
  const d = shape - 1 / 3;
  for (;;) {
    const x = normal(random);
    const v = (1 + x / Math.sqrt(9 * d)) ** 3;
    if (v > 0 && Math.log(1 - random()) < x ** 2 / 2 + d - d * v + d * Math.log(v)) return d * v;
  }
}

/** Box and Muller. */
const normal = (random: () => number): number =>
  Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());

const wordTokens = (count: number, random: () => number, encode: Encode): number[] =>
  encode(words(count, random)).slice(0, count);

/** A listing, and its beginning once more: what follows has stood there before. */
function agentTokens(count: number, random: () => number, encode: Encode): number[] {
  const lines: string[] = [];
  const number = () => Math.floor(random() * 900) + 100;
  const listing = () => encode(`Tool result ${number()}:\n${lines.join('\n')}\n`);
  for (let tokens = 0; tokens < 0.7 * count; tokens = listing().length) {
    lines.push(`{"path": "src/part-${number()}.ts", "lines": ${number()}, "changed": ${random() < 0.5}}`);
  }
  return [...listing(), ...encode(`The same list once more, unchanged:\n${lines.join('\n')}`)].slice(
    0,
    count,
  );
}
