/** The endpoint with batches as a process of its own, to be killed: `FOLDER` is kept, the port is printed. */
import { serveBatches } from './served-batches.fixture.ts';

const served = await serveBatches({
  folder: process.argv[2] ?? '',
  scriptFor: () => ({ tokenIds: [5, 6, 2], gapMs: 2 }),
});
console.log(`listening ${served.port}`);
