/**
 * Where the model is that a command serves: the path as it was given, what a hub id was fetched to, or the default model.
 * Called by start.ts and worker.ts before they start anything. Says how far a download is.
 */
import type { Config } from '../config.ts';
import { resolveDefaultModel } from './default-model.ts';
import { fetchHubModel, readHubId } from './hub-model.ts';
import type { DownloadProgress } from './model-download.ts';

export async function modelPlace(config: Config, root: string, signal: AbortSignal): Promise<string> {
  const { cacheDir, model } = config;
  let shownAt = 0;
  const onProgress = ({ label, doneBytes, totalBytes }: DownloadProgress): void => {
    const now = performance.now();
    if (now - shownAt < 1000) return;
    shownAt = now;
    const share = totalBytes ? ` ${Math.floor((100 * doneBytes) / totalBytes)} %` : '';
    console.log(`${label}${share}`);
  };
  const hubId = model === null ? null : readHubId(model);
  if (hubId !== null) {
    const { hubUrl, hubToken: token } = config;
    return fetchHubModel(hubId, { hubUrl, token, cacheDir, onProgress, signal });
  }
  if (model !== null) return model;
  const { path, line } = await resolveDefaultModel({ cacheDir, repositoryDir: root, signal, onProgress });
  console.log(line);
  return path;
}
