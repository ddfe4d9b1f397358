// The tokenizer thread's entry: registers tsx in the new thread, then loads the TypeScript behind it. A worker thread does
// not inherit a loader under every runner (vitest starts without one), so the thread brings its own.
import { register } from 'tsx/esm/api';

register();
await import('./tokenizer-thread.ts');
