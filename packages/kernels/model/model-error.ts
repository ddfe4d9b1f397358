/**
 * A model that cannot be read: the message names the file and the fault, in one sentence for people. What stands in the
 * file may be quoted in it, so it is made fit for a line of a terminal: no control characters, and not too long.
 */
export class ModelError extends Error {
  override readonly name = 'ModelError';
  readonly file: string;
  constructor(file: string, fault: string) {
    super(`${file}: ${onOneLine(fault)}`);
    this.file = file;
  }
}

const MOST_CHARS = 400;
const KEPT_AT_END = 120;

function onOneLine(text: string): string {
  const clipped =
    text.length <= MOST_CHARS
      ? text
      : `${text.slice(0, MOST_CHARS - KEPT_AT_END)} ... ${text.slice(-KEPT_AT_END)}`;
  return clipped.replace(/\s+/g, ' ').replace(/[\p{Cc}\p{Cf}\p{Cs}]/gu, '\ufffd');
}
