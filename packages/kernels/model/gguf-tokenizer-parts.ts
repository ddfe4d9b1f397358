/** What differs between the kinds of tokenizer in GGUF files; made by gguf-bpe.ts and gguf-sentencepiece.ts. */
export interface TokenizerParts {
  readonly normalizer: object | null;
  readonly preTokenizer: object | null;
  readonly decoder: object;
  readonly model: object;
  readonly isBosAddedByDefault: boolean;
}

/** `tokenizer.ggml.token_type` */
export const TOKEN_TYPE = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;
