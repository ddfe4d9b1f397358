/** `npx variator proposals`: what the optimizer proposes, and what came of it. */
import { asked, runningEngine } from './status.ts';
import { table } from './table.ts';

export async function proposalsCommand(argv: readonly string[]): Promise<number> {
  const { client } = runningEngine(argv);
  const proposals = await asked(() => client.proposals.list.query({ limit: 20 }));
  if (proposals.length === 0) {
    console.log(
      'No proposal yet. The optimizer needs about 30 requests; npx variator replay --demo sends some.',
    );
    return 0;
  }
  console.log(
    table(
      ['proposal', 'state', 'at', 'effect'],
      proposals.map(({ proposalId, state, createdAt, title }) => [
        proposalId.slice(0, 8),
        state,
        new Date(createdAt).toLocaleTimeString(),
        title,
      ]),
    ),
  );
  for (const { state, title, reason, changes, metrics } of proposals) {
    if (state !== 'open') continue;
    console.log(`\n${title}\n${reason}`);
    for (const { setting, from, to } of changes) console.log(`  ${setting}: ${from} -> ${to}`);
    console.log(
      table(
        ['metric', 'now', 'predicted', 'change'],
        metrics.map(({ metric, now, predicted, change }) => [
          metric,
          now.value.toPrecision(4),
          predicted.value.toPrecision(4),
          `${percent(change.value)} (${percent(change.low)} to ${percent(change.high)})`,
        ]),
      ),
    );
  }
  return 0;
}

const percent = (share: number): string => `${share >= 0 ? '+' : ''}${(100 * share).toFixed(1)} %`;
