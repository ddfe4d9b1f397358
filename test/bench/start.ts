/** Clean clone to first token, and warm start to ready: what a newcomer waits for. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { send } from '../../apps/engine/cli/drive.ts';
import { type RunningProduct, root, startProduct } from '../running-product.ts';
import { type Figure, figure, spread } from './figure.ts';

const WARM_STARTS = 3;

export async function benchStart(): Promise<readonly Figure[]> {
  const folder = mkdtempSync(join(tmpdir(), 'variator-clone-'));
  try {
    const clone = join(folder, 'variator');
    execFileSync('git', ['clone', '--quiet', root, clone]);
    const firstToken = async (product: RunningProduct) => {
      const endpoint = { url: product.inferenceUrl, modelId: product.modelId, apiKey: null };
      const request = { atMs: 0, prompt: 'Tell me a story.', maxTokens: 8, isStreamed: true, session: '' };
      const { ttftMs, fault } = await send(endpoint, request, new AbortController().signal);
      if (ttftMs === null) throw new Error(`no token came: ${fault}`);
      return ttftMs;
    };
    const cold = await startProduct({ cwd: clone, limitMs: 900_000 });
    const coldMs = cold.startMs + (await firstToken(cold));
    await cold.stop();
    const warm: number[] = [];
    for (let index = 0; index < WARM_STARTS; index += 1) {
      const product = await startProduct({ cwd: clone, dataDir: cold.dataDir });
      warm.push(product.startMs / 1000);
      await product.stop();
    }
    cold.removeData();
    return [
      figure(
        'clean clone to first token',
        spread([coldMs / 60_000]),
        'min',
        '< 6 min',
        (minutes) => minutes < 6,
      ),
      figure('warm start to /ready and dashboard', spread(warm), 's', '< 8 s', (seconds) => seconds < 8, 1),
    ];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
