/**
 * node-llama-cpp in a process of its own, out of the folder that the first argument names: one context of `slotCount`
 * sequences, and a line in and out for all that happens. Started by node-llama-cpp.ts alone.
 *
 *   in   {"id", "text", "tokenCount"}        out   {"isReady"} once, then {"id"} a token and {"id", "isDone"}
 */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const [folder, modelPath, slots, threads] = process.argv.slice(2);
const slotCount = Number(slots);
const threadCount = Number(threads);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const entry = createRequire(join(folder, 'package.json')).resolve('node-llama-cpp');
const { getLlama } = await import(pathToFileURL(entry).href);
const llama = await getLlama({ gpu: false, build: 'never', maxThreads: threadCount });
const model = await llama.loadModel({ modelPath });
const context = await model.createContext({
  sequences: slotCount,
  contextSize: 512,
  batchSize: 512,
  threads: { ideal: threadCount, min: threadCount },
  flashAttention: true,
});
say({ isReady: true });

const answer = async ({ id, text, tokenCount }) => {
  const sequence = context.getSequence();
  let count = 0;
  const tokens = model.tokenize(text, true);
  for await (const _ of sequence.evaluate(tokens, { temperature: 0, yieldEogToken: true })) {
    count += 1;
    say({ id });
    if (count >= tokenCount) break;
  }
  sequence.dispose();
  say({ id, isDone: true });
};

for await (const line of createInterface({ input: process.stdin })) void answer(JSON.parse(line));
process.exit(0);
