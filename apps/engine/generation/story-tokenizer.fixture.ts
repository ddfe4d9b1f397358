/** The tokenizer of the story model that ships with the project, read plainly; for the tests of generation/ and http/. */
import { readFileSync } from 'node:fs';
import type { GenerationDefaults, LoadedTokenizer } from '@variator/kernels/model';

export const STORY_VOCABULARY_SIZE = 2048;
export const storyDefaults: GenerationDefaults = { temperature: 0.7, topP: null, topK: 40 };

const read = (name: string): Record<string, unknown> => {
  const url = new URL(`../../../models/stories-5m/${name}`, import.meta.url);
  return JSON.parse(readFileSync(url, 'utf8')) as Record<string, unknown>;
};

export function storyTokenizer(changes: Partial<LoadedTokenizer> = {}): LoadedTokenizer {
  const tokenizerConfig = read('tokenizer_config.json');
  return {
    file: 'tokenizer.json',
    tokenizerJson: read('tokenizer.json'),
    tokenizerConfig,
    chatTemplate: String(tokenizerConfig.chat_template),
    bosTokenId: 0,
    eosTokenIds: [2, 0],
    ...changes,
  };
}
