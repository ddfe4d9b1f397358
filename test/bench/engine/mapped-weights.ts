/**
 * Packed weights mapped from their cache file against the same panels in anonymous memory: one step on each in turns, at batch 1
 * (bound by reading weights) and 16. Says on what pages either lies, since that is what could tell them apart.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { benchModel } from '../bench-model.ts';
import { type Figure, figure, pairedRatio, spread } from '../figure.ts';
import { type StepRuns, stepRuns } from '../kernels/step-runs.ts';

const ROUNDS = 60;
const STEPS_EACH = 3;
const THREADS = 2;
const batches = [1, 16];

export async function mappedWeights(): Promise<readonly Figure[]> {
  const { path, label } = await benchModel();
  const folder = mkdtempSync(join(tmpdir(), 'variator-panels-'));
  const file = join(folder, 'panels');
  const figures: Figure[] = [];
  const open = () => stepRuns(path, THREADS, 16 * 160);
  const [anonymous, mapped] = [await open(), await open()];
  try {
    const linear = mapped.fastest;
    const before = pagesInKib();
    await anonymous.prepareUntuned(linear, file);
    const between = pagesInKib();
    const { isFromCache } = await mapped.prepareUntuned(linear, file);
    const after = pagesInKib();
    if (!isFromCache) throw new Error('The panels did not come from their file.');
    for (const sequenceCount of batches) {
      const times = { anonymous: [] as number[], mapped: [] as number[] };
      const least = async (runs: StepRuns): Promise<number> => {
        const all: number[] = [];
        for (let step = 0; step < STEPS_EACH; step += 1) {
          const shape = { sequenceCount, tokensEach: 1, contextLength: 128 };
          all.push((await runs.run(shape, linear, THREADS)).deviceMs);
        }
        return Math.min(...all);
      };
      for (const runs of [anonymous, mapped]) await least(runs);
      for (let round = 0; round < ROUNDS; round += 1) {
        const order =
          round % 2 === 0 ? (['anonymous', 'mapped'] as const) : (['mapped', 'anonymous'] as const);
        for (const which of order) times[which].push(await least(which === 'mapped' ? mapped : anonymous));
      }
      const name = `${label}, ${linear}, batch ${sequenceCount}`;
      figures.push(
        figure(
          `${name}: mapped over anonymous`,
          pairedRatio(times.mapped, times.anonymous),
          'x',
          '',
          null,
          3,
        ),
        figure(`${name}: anonymous`, spread(times.anonymous), 'ms', '', null),
      );
    }
    figures.push({
      figure: `${label}, ${linear}: on pages of 2 MiB`,
      goal: '',
      measured: `anonymous ${inMib(between.anonymous - before.anonymous)}, mapped ${inMib(after.mapped - between.mapped)}`,
      interval: '',
      isMet: null,
    });
  } finally {
    for (const runs of [anonymous, mapped]) runs.close();
    rmSync(folder, { recursive: true });
  }
  return figures;
}

/** What of this process lies on huge pages, by /proc; 0 where that is not there. */
function pagesInKib(): { anonymous: number; mapped: number } {
  let rollup = '';
  try {
    rollup = readFileSync('/proc/self/smaps_rollup', 'utf8');
  } catch {
    // Not Linux: no pages to tell.
  }
  const of = (name: string): number => Number(new RegExp(`^${name}: +(\\d+) kB`, 'm').exec(rollup)?.[1] ?? 0);
  return { anonymous: of('AnonHugePages'), mapped: of('FilePmdMapped') };
}

const inMib = (kib: number): string => `${(kib / 1024).toFixed(0)} MiB`;
