/**
 * Clients that keep answers streaming through OpenAI's own npm client while a test changes the engine under them. Used by
 * the end-to-end tests; every stream's fate is kept, so that a dropped or altered one cannot pass unseen.
 */
import OpenAI from 'openai';
import type { RunningProduct } from './running-product.ts';

export interface StreamRecord {
  readonly prompt: string;
  readonly startedAt: number;
  /** null where no token came. */
  readonly firstTokenAt: number | null;
  readonly endedAt: number;
  readonly text: string;
  readonly finishReason: string | null;
  /** '' where the stream ended as it should. */
  readonly fault: string;
}

export interface StreamingClients {
  readonly records: readonly StreamRecord[];
  /** Opens no further streams; resolves when those under way have ended. */
  stop(): Promise<void>;
}

/** Few prompts, so that each is answered before, during and after a change of path. */
const prompts = [
  'Tell me about a dog who found a boat.',
  'A little girl went to the garden. What did she see?',
  'The moon was big and the night was quiet. Tell me more.',
  'Why did the bird fly over the hill?',
  'A story about a red ball and a tall tree, please.',
  'The old man looked at the rain and said',
  'Two friends made a kite. What came next?',
  'Once there was a cat who liked to count.',
] as const;

/** @param clientCount streams open at once, each followed by the next as soon as it ends */
export function keepStreaming(
  product: Pick<RunningProduct, 'inferenceUrl' | 'modelId'>,
  options: { readonly clientCount: number; readonly maxTokens: number },
): StreamingClients {
  const client = new OpenAI({ baseURL: `${product.inferenceUrl}/v1`, apiKey: 'any', maxRetries: 0 });
  const records: StreamRecord[] = [];
  let isStopping = false;
  let next = 0;
  const loops = Array.from({ length: options.clientCount }, async () => {
    while (!isStopping) {
      const prompt = prompts[next % prompts.length] ?? prompts[0];
      next += 1;
      const record = await stream(client, product.modelId, prompt, options.maxTokens);
      records.push(record);
      // A gateway that refuses everything must not be asked thousands of times.
      if (record.fault !== '') return;
    }
  });
  return {
    records,
    async stop() {
      isStopping = true;
      await Promise.all(loops);
    },
  };
}

async function stream(
  client: OpenAI,
  model: string,
  prompt: string,
  maxTokens: number,
): Promise<StreamRecord> {
  const startedAt = Date.now();
  let firstTokenAt: number | null = null;
  let text = '';
  let finishReason: string | null = null;
  let fault = '';
  try {
    const body = {
      model,
      messages: [{ role: 'user' as const, content: prompt }],
      max_tokens: maxTokens,
      temperature: 0,
      stream: true as const,
      // The model's own end of text would make streams too short to see a change of path.
      ignore_eos: true,
    };
    for await (const chunk of await client.chat.completions.create(body)) {
      const choice = chunk.choices[0];
      if (choice?.delta.content) {
        firstTokenAt ??= Date.now();
        text += choice.delta.content;
      }
      finishReason = choice?.finish_reason ?? finishReason;
    }
  } catch (error) {
    fault = error instanceof Error ? error.message : String(error);
  }
  return { prompt, startedAt, firstTokenAt, endedAt: Date.now(), text, finishReason, fault };
}
