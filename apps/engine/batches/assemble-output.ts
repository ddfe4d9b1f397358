/**
 * Output and error file of a batch that runs no more lines: its results in the order of its input, and for every line that
 * has none the reason. Called by open-batches.ts; the files stand on the disk when it returns, their rows are its caller's
 * to write. Done again after a crash it makes the same files under other ids.
 */
import { randomUUID } from 'node:crypto';
import type { Batch, LineCounts, LineUsage } from './batch.ts';
import type { LineRules } from './check-input.ts';
import { readLine } from './check-input.ts';
import type { FileDraft, FilePlace } from './file-place.ts';
import { inputLines } from './input-lines.ts';
import type { ResultLog } from './result-log.ts';

export interface AssembledFile {
  readonly fileId: string;
  readonly bytes: number;
}

export interface Assembled {
  readonly output: AssembledFile | null;
  readonly errors: AssembledFile | null;
  readonly counts: LineCounts;
  readonly usage: LineUsage;
}

/** Why a line never ran. */
export type UnrunReason = 'batch_cancelled' | 'batch_expired';

const reasonWords: Readonly<Record<UnrunReason, string>> = {
  batch_cancelled: 'This request was not run, because the batch was cancelled.',
  batch_expired: 'This request could not be run before the completion window passed.',
};

const GROUP_BYTES = 256 * 1024;

export const newFileId = (): string => `file-${randomUUID().replaceAll('-', '')}`;

/** The id of a line's result; the same however often it is asked for. */
export const lineId = (batchId: string, index: number): string =>
  `batch_req_${batchId.replace(/^batch_/, '')}_${index}`;

/** @throws Error of Node's from the disk; then nothing of it is kept */
export async function assembleOutput(
  batch: Batch,
  parts: {
    readonly place: FilePlace;
    readonly log: ResultLog;
    readonly rules: LineRules;
    readonly inputPath: string;
  },
): Promise<Assembled> {
  const { log } = parts;
  const output = lazyDraft(parts.place);
  const errors = lazyDraft(parts.place);
  const counts = log.counts();
  const hasUnrun = counts.completed + counts.failed < counts.total;
  const reason: UnrunReason = batch.status === 'cancelling' ? 'batch_cancelled' : 'batch_expired';
  const lines = hasUnrun ? inputLines(parts.inputPath, parts.rules.maxLineBytes) : null;
  try {
    let index = 0;
    for await (const result of log.inOrder()) {
      const line = lines === null ? null : ((await lines.next()).value ?? null);
      if (result !== null) {
        await (result.isAnswered ? output : errors).add(result.json);
      } else {
        const read = line?.bytes == null ? null : readLine(line.bytes, batch.endpoint, parts.rules);
        const customId = read !== null && 'customId' in read ? read.customId : null;
        await errors.add(Buffer.from(unrunLine(batch.batchId, index, customId, reason)));
      }
      index += 1;
    }
    return { output: await output.keep(), errors: await errors.keep(), counts, usage: log.usage() };
  } catch (error) {
    await Promise.all([output.discard(), errors.discard()]);
    throw error;
  } finally {
    await lines?.return(undefined);
  }
}

const unrunLine = (batchId: string, index: number, customId: string | null, code: UnrunReason): string =>
  JSON.stringify({
    id: lineId(batchId, index),
    custom_id: customId,
    response: null,
    error: { code, message: reasonWords[code] },
  });

/** A file that is only made when there is something to put into it. */
function lazyDraft(place: FilePlace) {
  let draft: FileDraft | null = null;
  let group: Buffer[] = [];
  let groupBytes = 0;
  const newline = Buffer.from('\n');
  const flush = async (): Promise<void> => {
    if (groupBytes === 0) return;
    draft ??= await place.draft(newFileId(), 'promised');
    await draft.write(Buffer.concat(group));
    group = [];
    groupBytes = 0;
  };
  return {
    async add(line: Buffer): Promise<void> {
      group.push(line, newline);
      groupBytes += line.length + 1;
      if (groupBytes > GROUP_BYTES) await flush();
    },
    async keep(): Promise<AssembledFile | null> {
      await flush();
      if (draft === null) return null;
      await draft.keep();
      return { fileId: draft.fileId, bytes: draft.bytes };
    },
    async discard(): Promise<void> {
      if (draft === null) return;
      await draft.discard();
      await place.remove(draft.fileId);
    },
  };
}
