/** A model that cannot be read: the message names the file and the fault, in one sentence for people. */
export class ModelError extends Error {
  override readonly name = 'ModelError';
  readonly file: string;
  constructor(file: string, fault: string) {
    super(`${file}: ${fault}`);
    this.file = file;
  }
}
