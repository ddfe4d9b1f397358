/**
 * What a path says about the parameters of its kernels (`tiles`): `measured`, `prior`, or settings over what was measured, as
 * `full.slabRows=48+decode.prefetchBlocks=2`. Read by execution-path.ts to refuse, by the dispatch tables to act. Pure.
 */
import { attentionKernels, linearKernels, type ParameterRange } from './kernel-parameters.ts';

export const MEASURED_TILES = 'measured';
export const PRIOR_TILES = 'prior';

/** Their ids are of one space: a setting names its kernel alone. */
const kernels: readonly { id: string; parameters: Readonly<Record<string, ParameterRange>> }[] = [
  ...linearKernels,
  ...attentionKernels,
];

export interface TileSetting {
  /** Of `linearKernels` or `attentionKernels`. */
  readonly kernel: string;
  readonly parameter: string;
  readonly value: number;
}

/** @returns the settings, none for `measured` and `prior`; or a sentence that says what is wrong */
export function readTiles(tiles: string): readonly TileSetting[] | string {
  if (tiles === MEASURED_TILES || tiles === PRIOR_TILES) return [];
  const settings: TileSetting[] = [];
  for (const part of tiles.split('+')) {
    const [, kernelId, name = '', digits] = /^(\w+)\.(\w+)=(\d{1,6})$/.exec(part) ?? [];
    const kernel = kernels.find(({ id }) => id === kernelId);
    const range = Object.entries(kernel?.parameters ?? {}).find(([parameter]) => parameter === name)?.[1];
    if (kernel === undefined || range === undefined) {
      return `tiles must be measured, prior, or settings such as full.slabRows=48+decode.prefetchBlocks=2, not "${part}".`;
    }
    const value = Number(digits);
    if (value < range.least || value > range.most) {
      return `tiles: ${kernel.id}.${name} must be a whole number from ${range.least} to ${range.most}, not ${digits}.`;
    }
    settings.push({ kernel: kernel.id, parameter: name, value });
  }
  return settings;
}

/** @throws Error for tiles that `readTiles` refuses */
export function settingsOf(tiles: string): readonly TileSetting[] {
  const settings = readTiles(tiles);
  if (typeof settings === 'string') throw new Error(settings);
  return settings;
}

/** The tuning with what the settings say of its kernel. */
export function withTiles<Tuning extends Readonly<Record<string, number>>>(
  tuning: Tuning,
  kernelId: string,
  settings: readonly TileSetting[],
): Tuning {
  const own = settings.filter(({ kernel }) => kernel === kernelId);
  return { ...tuning, ...Object.fromEntries(own.map(({ parameter, value }) => [parameter, value])) };
}
