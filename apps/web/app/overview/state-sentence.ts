/** The overview's one sentence: calm when all is well, fact and size when it is not. Pure; called by the overview. */
import type { OverviewSummary, Policy } from '../../api.ts';
import { formatFactor } from '../../format.ts';

export function stateSentence(
  summary: OverviewSummary | undefined,
  objectives: Policy['objectives'] | null,
  rangeName: string,
): string {
  if (summary === undefined) return '';
  const model = summary.modelId === '' ? 'The model' : summary.modelId;
  if (!summary.isReady) return `${model} does not take requests now.`;
  if (objectives === null || (summary.ttftP95Ms === null && summary.itlP95Ms === null)) {
    return `${model} is ready; no request ended in the ${rangeName}.`;
  }
  const over = [
    { name: 'TTFT p95', value: summary.ttftP95Ms, objective: objectives.ttftMs },
    { name: 'ITL p95', value: summary.itlP95Ms, objective: objectives.itlMs },
  ].flatMap(({ name, value, objective }) =>
    value !== null && value > objective
      ? [`${name} is ${formatFactor(value / objective)} its objective`]
      : [],
  );
  if (over.length === 0) return `${model} is within its objectives over the ${rangeName}.`;
  return `${over.join(' and ')} over the ${rangeName}.`;
}
