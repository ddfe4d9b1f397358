/**
 * tokenizer.json, tokenizer_config.json, special_tokens_map.json and chat_template.jinja of a model folder, in the shape
 * that `@huggingface/tokenizers` takes. Called by hugging-face.ts. Interprets nothing but the special tokens' names and
 * ids; refuses folders without tokenizer.json.
 */
import { join } from 'node:path';
import { z } from 'zod';
import { checkTokenizer } from './check-tokenizer.ts';
import { parseFields, readJson, readJsonIfThere, readTextIfThere } from './json-file.ts';
import type { LoadedTokenizer } from './loaded-model.ts';
import { ModelError } from './model-error.ts';

const NAMED_TOKENS = ['bos_token', 'eos_token', 'unk_token', 'pad_token'] as const;

const tokenSchema = z
  .union([z.string(), z.object({ content: z.string() }).transform(({ content }) => content)])
  .nullish();

const configSchema = z.object({
  bos_token: tokenSchema,
  eos_token: tokenSchema,
  unk_token: tokenSchema,
  pad_token: tokenSchema,
  chat_template: z
    .union([z.string(), z.array(z.object({ name: z.string(), template: z.string() }))])
    .nullish(),
});

/** What config.json and generation_config.json say of the special tokens; the tokenizer's own words are joined to it. */
export interface SpecialTokenIds {
  readonly bosTokenId: number | null;
  readonly eosTokenIds: readonly number[];
}

/** @throws ModelError */
export async function readTokenizerFiles(
  folder: string,
  ids: SpecialTokenIds,
  vocabularySize: number,
): Promise<LoadedTokenizer> {
  const tokenizerFile = join(folder, 'tokenizer.json');
  const checked = checkTokenizer(tokenizerFile, await readJson(tokenizerFile), vocabularySize);
  const { vocabulary, addedTokens } = checked;

  const configFile = join(folder, 'tokenizer_config.json');
  const specialTokens = (await readJsonIfThere(join(folder, 'special_tokens_map.json'))) ?? {};
  const given = (await readJsonIfThere(configFile)) ?? {};
  const merged: Record<string, unknown> = { ...given };
  for (const name of NAMED_TOKENS) merged[name] = given[name] ?? specialTokens[name];
  const config = parseFields(configFile, configSchema, merged);

  const templateFile = await readTextIfThere(join(folder, 'chat_template.jinja'));
  const chatTemplate = templateFile ?? defaultTemplate(configFile, config.chat_template);
  const tokenizerConfig: Record<string, unknown> = { ...given, chat_template: chatTemplate };
  for (const name of NAMED_TOKENS) tokenizerConfig[name] = config[name] ?? null;

  const idOf = (token: string | null | undefined): number | null => {
    if (token === null || token === undefined) return null;
    return addedTokens.find(({ content }) => content === token)?.id ?? vocabulary.get(token) ?? null;
  };
  const eosTokenId = idOf(config.eos_token);
  const eosTokenIds = new Set([...ids.eosTokenIds, ...(eosTokenId === null ? [] : [eosTokenId])]);
  return {
    file: tokenizerFile,
    tokenizerJson: checked.usable,
    tokenizerConfig,
    chatTemplate,
    bosTokenId: idOf(config.bos_token) ?? ids.bosTokenId,
    eosTokenIds: [...eosTokenIds].sort((a, b) => a - b),
  };
}

function defaultTemplate(
  file: string,
  template: z.infer<typeof configSchema>['chat_template'],
): string | null {
  if (template === null || template === undefined) return null;
  if (typeof template === 'string') return template;
  const found = template.find(({ name }) => name === 'default');
  if (found === undefined) throw new ModelError(file, 'none of its chat templates is called "default".');
  return found.template;
}
