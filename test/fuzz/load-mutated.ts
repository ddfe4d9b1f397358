/**
 * Reads mutated model files as the gateway and the worker do, and judges what comes of each: a model that holds together
 * and computes, or a ModelError whose one sentence names the file. Used by `npm run fuzz -- models` and by its test.
 */
import { copyFileSync, linkSync, mkdirSync, rmSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { type LoadedModel, loadModel } from '@variator/kernels/model';
import { ModelError } from '@variator/kernels/model/model-error';
import type { TensorSource } from '@variator/kernels/model/model-shape';
import { loadNative } from '@variator/kernels/native';
import { Vocabulary } from '../../apps/engine/generation/detokenizer.ts';
import { PromptEncoder } from '../../apps/engine/generation/prompt-encoder.ts';
import { namedTensors } from '../../packages/kernels/model/model-hash.ts';
import { tinyFolders, writeTinyFolder } from '../../packages/kernels/model/tiny-folder.fixture.ts';
import { StepDriver } from '../../packages/kernels/step-driver.fixture.ts';
import { FOLDER_FILES, type MutatedModel, mutatedModels, SHARD } from './mutated-models.ts';

export interface ModelFuzzOutcome {
  readonly loadedCount: number;
  readonly refusedCount: number;
  /** Different sentences, file and numbers left out. */
  readonly sentenceCount: number;
  readonly slowestMs: number;
  /** Where the file is that did it, and what came of it. */
  readonly faults: readonly { readonly index: number; readonly what: string; readonly outcome: string }[];
}

const MOST_FAULTS_KEPT = 20;
const MOST_MS = 5000;
const MOST_SENTENCE_CHARS = 600;

/** @param options.folder scratch; `story` is models/stories-5m */
export async function loadMutated(options: {
  readonly story: string;
  readonly folder: string;
  readonly count: number;
  readonly seed: number;
  readonly onLoaded?: (count: number) => void;
}): Promise<ModelFuzzOutcome> {
  const { story, folder, count, seed } = options;
  const folders = mutableFolders(story, folder);
  const mutants = mutatedModels(folders, seed);
  const judge = new Judge(folders, folder);
  const faults: { index: number; what: string; outcome: string }[] = [];
  for (let index = 0; index < count; index += 1) {
    options.onLoaded?.(index);
    const mutant = mutants.next().value as MutatedModel;
    const fault = await judge.faultOf(mutant);
    if (fault === null || faults.length >= MOST_FAULTS_KEPT) continue;
    const what = mutant.kind === 'gguf' ? 'a GGUF file' : `${mutant.file} of folder ${mutant.folder}`;
    faults.push({ index, what, outcome: fault });
    writeFileSync(join(folder, `fault-${index}`), mutant.bytes);
  }
  return { ...judge.counts(), faults };
}

/** The story model's folder, and those of mixtures of experts, written into `scratch`. */
export function mutableFolders(story: string, scratch: string): string[] {
  const tiny = tinyFolders.map((kind) => {
    const path = join(scratch, kind);
    writeTinyFolder(path, kind, story);
    return path;
  });
  return [story, ...tiny];
}

/** A copy of a model's folder in which one file at a time is another. */
class ChangedFolder {
  readonly #from: string;
  readonly #copy: string;
  /** The file in which the copy differs. */
  #changed: string | null = null;

  constructor(from: string, copy: string) {
    this.#from = from;
    this.#copy = copy;
    mkdirSync(copy, { recursive: true });
    for (const file of FOLDER_FILES) copyFileSync(join(from, file), join(copy, file));
    linkSync(join(copy, 'model.safetensors'), join(copy, SHARD));
  }

  /** @returns the folder */
  write({ file, bytes, size }: { file: string; bytes: Uint8Array; size: number }): string {
    this.#restore();
    const target = join(this.#copy, file);
    // An index is read only where there is no single file.
    if (file === 'model.safetensors.index.json') unlinkSync(join(this.#copy, 'model.safetensors'));
    rmSync(target, { force: true });
    writeFileSync(target, bytes);
    truncateSync(target, size);
    this.#changed = file;
    return this.#copy;
  }

  /** Its weights have a second name, so that they need not be copied. */
  #restore(): void {
    const weights = join(this.#copy, 'model.safetensors');
    if (this.#changed !== null) rmSync(join(this.#copy, this.#changed));
    if (this.#changed === 'model.safetensors' || this.#changed === 'model.safetensors.index.json') {
      linkSync(join(this.#copy, SHARD), weights);
    } else if (this.#changed !== null) {
      copyFileSync(join(this.#from, this.#changed), join(this.#copy, this.#changed));
    }
    this.#changed = null;
  }
}

class Judge {
  readonly #folder: string;
  readonly #folders: readonly ChangedFolder[];
  readonly #sentences = new Set<string>();
  #loadedCount = 0;
  #refusedCount = 0;
  #slowestMs = 0;

  constructor(folders: readonly string[], folder: string) {
    this.#folder = folder;
    this.#folders = folders.map(
      (from, index) => new ChangedFolder(from, join(folder, index === 0 ? 'story' : `changed-${index}`)),
    );
  }

  counts(): Omit<ModelFuzzOutcome, 'faults'> {
    return {
      loadedCount: this.#loadedCount,
      refusedCount: this.#refusedCount,
      sentenceCount: this.#sentences.size,
      slowestMs: this.#slowestMs,
    };
  }

  /** What is wrong with how the mutant was taken, or null. */
  async faultOf(mutant: MutatedModel): Promise<string | null> {
    const path = this.#write(mutant);
    const startedAt = performance.now();
    const fault = await this.#take(path);
    const tookMs = performance.now() - startedAt;
    this.#slowestMs = Math.max(this.#slowestMs, tookMs);
    return fault ?? (tookMs > MOST_MS ? `took ${Math.round(tookMs)} ms` : null);
  }

  async #take(path: string): Promise<string | null> {
    let model: LoadedModel;
    try {
      model = await loadModel(path);
      new Vocabulary(model.tokenizer);
    } catch (error) {
      this.#refusedCount += 1;
      if (!(error instanceof ModelError)) return `refused by ${error instanceof Error ? error.stack : error}`;
      return this.#faultOfSentence(error);
    }
    this.#loadedCount += 1;
    try {
      return faultOfModel(model) ?? faultOfTokens(model) ?? (await faultOfStep(model));
    } catch (error) {
      return `loaded, then ${error instanceof Error ? error.stack : error}`;
    }
  }

  #faultOfSentence({ message, file }: ModelError): string | null {
    const [fault, ...rest] = message.startsWith(`${file}: `) ? [message.slice(file.length + 2)] : [];
    if (fault === undefined || rest.length > 0 || !file.startsWith(this.#folder))
      return `no file: ${message}`;
    this.#sentences.add(fault.replace(/[\d.]+|"[^"]*"|\[[^\]]*\]|the tensor \S+/g, '#'));
    const isSentence = /^[\p{L}\d"].*\.$/u.test(fault) && fault.length <= MOST_SENTENCE_CHARS;
    return isSentence && !/\p{Cc}|undefined|\[object|TypeError|RangeError/u.test(fault)
      ? null
      : `no sentence: ${fault}`;
  }

  /** @returns what to load */
  #write(mutant: MutatedModel): string {
    if (mutant.kind === 'gguf') {
      const file = join(this.#folder, 'mutant.gguf');
      writeFileSync(file, mutant.bytes);
      return file;
    }
    const folder = this.#folders[mutant.folder];
    if (folder === undefined) throw new Error(`no folder ${mutant.folder}`);
    return folder.write(mutant);
  }
}

/** The reader's promises: numbers that compute, ids of the vocabulary, tensors inside their file and apart. */
function faultOfModel({ shape, tensors, tokenizer }: LoadedModel): string | null {
  const { headCount, kvHeadCount, headSize, vocabularySize, rmsNormEpsilon, windowTokens } = shape;
  const counts = [shape.layerCount, shape.hiddenSize, shape.intermediateSize, headCount, kvHeadCount];
  counts.push(headSize, vocabularySize, shape.maxPositionCount);
  if (!counts.every((count) => Number.isInteger(count) && count > 0)) return `counts ${counts}`;
  if (headCount % kvHeadCount !== 0 || headSize % 2 !== 0) return `${headCount} ${kvHeadCount} ${headSize}`;
  if (!(rmsNormEpsilon > 0 && rmsNormEpsilon < 1)) return `epsilon ${rmsNormEpsilon}`;
  if (windowTokens.length !== shape.layerCount || windowTokens.some((tokens) => tokens < 0)) return 'windows';
  const rope = [shape.ropeAttentionFactor, ...shape.ropeInverseFrequencies];
  if (
    rope.length !== (shape.latent?.ropeSize ?? headSize) / 2 + 1 ||
    !rope.every((value) => Number.isFinite(value) && value >= 0)
  ) {
    return `rope ${rope}`;
  }
  const ids = [...tokenizer.eosTokenIds, tokenizer.bosTokenId ?? 0];
  if (!ids.every((id) => Number.isInteger(id) && id >= 0 && id < vocabularySize)) return `ids ${ids}`;
  const { experts } = shape;
  if (experts !== null && experts.expertsPerToken > experts.expertCount) return 'more experts than there are';
  const places = namedTensors(tensors).map(([, tensor]) => tensor);
  return faultOfPlaces(tensors.head === tensors.embedding ? places.slice(0, -1) : places);
}

function faultOfPlaces(tensors: readonly TensorSource[]): string | null {
  const inOrder = [...tensors].sort((a, b) => a.file.localeCompare(b.file) || a.offset - b.offset);
  for (const [index, { file, offset, byteLength }] of inOrder.entries()) {
    const next = inOrder[index + 1];
    if (!Number.isSafeInteger(offset + byteLength) || offset < 0) return `a tensor at ${offset}`;
    if (next !== undefined && next.file === file && next.offset < offset + byteLength) return 'an overlap';
  }
  return null;
}

/** As a tokenizer thread does; what the library cannot build ends a start there with a sentence. */
function faultOfTokens({ tokenizer, shape }: LoadedModel): string | null {
  let encoder: PromptEncoder;
  try {
    encoder = new PromptEncoder({ tokenizer, maxRenderedChars: 100_000 });
  } catch {
    return null;
  }
  const ids = ['Once upon a time', 'ab <|im_end|> <user>', '\u5927\0\ud83d\ude00'].flatMap((text) => [
    ...encoder.encode(text, null),
    ...encoder.encode(text, ''),
  ]);
  const stranger = ids.find((id) => !(id >= 0 && id < shape.vocabularySize));
  return stranger === undefined ? null : `the id ${stranger} from a text, of ${shape.vocabularySize}`;
}

/** Opens the model natively and computes two tokens, twice: the same comes of the same. */
async function faultOfStep(model: LoadedModel): Promise<string | null> {
  if (model.shape.maxPositionCount < 4) return null;
  const steps = { sequenceCount: 2, tokensPerSequence: 8, threadCount: 1, blockSize: 8 };
  const driver = new StepDriver(loadNative(), model, steps);
  try {
    const last = model.shape.vocabularySize - 1;
    const { tokens } = await driver.generate(
      [
        [0, last],
        [0, last],
      ],
      2,
      { linear: 'linear.reference', chunkSize: 8 },
    );
    const isIn = tokens.flat().every((id) => id >= 0 && id <= last);
    return isIn && isDeepStrictEqual(tokens[0], tokens[1]) ? null : `tokens ${JSON.stringify(tokens)}`;
  } finally {
    driver.close();
  }
}
