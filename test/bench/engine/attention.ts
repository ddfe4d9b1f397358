/**
 * A decode step with long contexts by each attention variant, the same step on each in turns: what a narrower KV cache saves.
 * Random keys and values would round as these do; the contexts are as long as agents have them.
 */
import { type AttentionVariantId, attentionVariants } from '@variator/kernels/catalogue';
import { benchModel } from '../bench-model.ts';
import { type Figure, figure, pairedRatio, spread } from '../figure.ts';
import { type StepRuns, type StepShape, stepRuns } from '../kernels/step-runs.ts';

const ROUNDS = 9;
const shapes: readonly { name: string; step: StepShape }[] = [
  { name: 'batch 1, context 1900', step: { sequenceCount: 1, tokensEach: 1, contextLength: 1900 } },
  { name: 'batch 16, context 1900', step: { sequenceCount: 16, tokensEach: 1, contextLength: 1900 } },
  { name: 'prefill of 512', step: { sequenceCount: 1, tokensEach: 512, contextLength: 0 } },
];

export async function attentionFormats(): Promise<readonly Figure[]> {
  const { path, label } = await benchModel();
  const runs = new Map<AttentionVariantId, StepRuns>();
  for (const id of attentionVariants) {
    const own = await stepRuns(path, 2, 16 * 1920, id);
    await own.prepare(own.fastest);
    runs.set(id, own);
  }
  const figures: Figure[] = [];
  for (const { name, step } of shapes) {
    const times = new Map<AttentionVariantId, number[]>(attentionVariants.map((id) => [id, []]));
    for (const [id, own] of runs) await own.run(step, own.fastest, 2).then(() => id);
    for (let round = 0; round < ROUNDS; round += 1) {
      for (const [id, own] of runs) times.get(id)?.push((await own.run(step, own.fastest, 2)).deviceMs);
    }
    const reference = times.get('attention.reference') ?? [];
    for (const [id, own] of times) {
      figures.push(figure(`${label}, ${name}: ${id}`, spread(own), 'ms', '', null, 1));
      if (id === 'attention.reference') continue;
      figures.push(
        figure(`${label}, ${name}: reference over ${id}`, pairedRatio(reference, own), 'x', '', null),
      );
    }
  }
  for (const own of runs.values()) own.close();
  return figures;
}
