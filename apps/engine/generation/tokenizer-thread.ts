/**
 * The body of a tokenizer thread: builds a PromptEncoder from its start data, then answers one job at a time. Started by
 * tokenizer-pool.ts through tokenizer-thread.mjs. Keeps no time: the pool ends a thread that takes too long.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { TemplateError } from './chat-template.ts';
import { PromptEncoder, type PromptEncoderData } from './prompt-encoder.ts';
import type { ThreadAnswer, ThreadJob } from './tokenizer-pool.ts';

const port = parentPort;
if (port === null) throw new Error('tokenizer-thread.ts runs only as a worker thread');

/** A few milliseconds' worth; what is longer is first held against the context's length. */
const MOST_CHARS_ENCODED_AT_ONCE = 16_384;

const encoder = new PromptEncoder(workerData as PromptEncoderData);

function answer(job: ThreadJob): ThreadAnswer {
  try {
    if (job.kind === 'render') {
      const rendered = encoder.render(job.messages, job.isAnswerOpened);
      const isShort = rendered.text.length <= MOST_CHARS_ENCODED_AT_ONCE;
      const tokenIds = isShort ? encoder.encode(rendered.text, rendered.guard) : null;
      return { kind: 'rendered', ...rendered, tokenIds };
    }
    if (job.kind === 'decode') return { kind: 'decoded', ...encoder.decode(job.tokenIds) };
    return { kind: 'encoded', tokenIds: encoder.encode(job.text, job.guard) };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return { kind: 'refused', isTemplate: error instanceof TemplateError, message: message.slice(0, 400) };
  }
}

port.on('message', (job: ThreadJob) => {
  const reply = answer(job);
  port.postMessage(reply, reply.kind === 'encoded' ? [reply.tokenIds.buffer as ArrayBuffer] : []);
});
port.postMessage({ kind: 'ready' } satisfies ThreadAnswer);
