/** The default model where it is cached or can be fetched, else the story model: what the benches and slow tests run on. */
import { resolveDefaultModel } from '../../apps/engine/cli/default-model.ts';
import { readConfig } from '../../apps/engine/config.ts';
import { root } from '../running-product.ts';

export async function benchModel(): Promise<{ path: string; label: string }> {
  const { path, line } = await resolveDefaultModel({
    cacheDir: readConfig([]).cacheDir,
    repositoryDir: root,
    onProgress: () => {},
  });
  console.log(line);
  return { path, label: path.endsWith('.gguf') ? 'SmolLM2-135M' : 'stories-5m' };
}
