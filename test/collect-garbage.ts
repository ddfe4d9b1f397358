/** Collects all garbage now, also where Node was started without --expose-gc. For tests and benches that weigh the heap. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

export const collectGarbage = (): void => collect();
