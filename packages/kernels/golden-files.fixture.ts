/**
 * The golden models beside the repository (../shared/golden) and the default model's file in the cache, for tests. Where
 * one is missing, says SKIPPED aloud and returns null, so that a test can skip itself. Refuses to fetch anything.
 */
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { fileURLToPath } from 'node:url';

export interface GoldenCase {
  readonly prompt: number[];
  readonly greedy: number[];
  /** Logits at the prompt's end; the tiny models only. */
  readonly last_logits?: number[];
  /** [token, logit] of the best five at the prompt's end; smollm2 only. */
  readonly last_logits_top5?: [number, number][];
  /** Distance between best and second-best logit at each token of `greedy`. */
  readonly margins?: number[];
}

export interface Golden {
  readonly name: string;
  readonly modelPath: string;
  readonly cases: GoldenCase[];
}

const repository = fileURLToPath(new URL('../../', import.meta.url));
const goldenFolder = fileURLToPath(new URL('../../../shared/golden/', import.meta.url));
const defaultModelFile = 'SmolLM2-135M-Instruct.Q4_1.gguf';

export function readGolden(name: string): Golden | null {
  const file = `${goldenFolder}${name}/golden.json`;
  const candidates = {
    smollm2: [
      `${homedir()}/.cache/variator/models/${defaultModelFile}`,
      `${homedir()}/Library/Caches/variator/models/${defaultModelFile}`,
    ],
    'stories-5m': [`${repository}models/stories-5m`],
  }[name] ?? [`${goldenFolder}${name}`];
  const modelPath = candidates.find((path) => existsSync(path));
  if (!existsSync(file) || modelPath === undefined) {
    console.warn(`SKIPPED: golden model ${name} (${existsSync(file) ? candidates[0] : file} is not there)`);
    return null;
  }
  const { cases } = JSON.parse(readFileSync(file, 'utf8')) as { cases: GoldenCase[] };
  return { name, modelPath, cases };
}

export const tinyModels = [
  'llama-gqa',
  'llama-tied',
  'qwen2-bias',
  'qwen3-qknorm',
  'qwen3-moe',
  'deepseek-v3',
] as const;

/**
 * The golden file's own margins say that these ten of its tokens are not the best by float32 logits: at each of them the
 * best logit leads by exactly the stated margin, and the golden token is another. Case -> positions.
 */
export const smollm2SecondBest: Readonly<Record<number, readonly number[]>> = {
  1: [1],
  2: [4, 17, 27, 31],
  4: [12, 15],
  6: [22],
  8: [1, 6],
};
