/**
 * Where the dashboard's server finds the gateway's admin port and the key for it. The only reader of process.env in
 * this workspace; called by the proxy route for each request, so that nothing is frozen when the pages are built.
 */
import { readFile } from 'node:fs/promises';

export interface ServerSettings {
  /** Origin of the admin port, without a path. */
  readonly adminUrl: URL;
  /** '' where the gateway asks for no key. */
  readonly adminKey: string;
}

export class SettingsError extends Error {
  override readonly name = 'SettingsError';
}

/** @throws SettingsError with a sentence that names the setting */
export async function readServerSettings(): Promise<ServerSettings> {
  const urlText = process.env.VARIATOR_WEB_ADMIN_URL ?? 'http://127.0.0.1:8001';
  const keyFile = process.env.VARIATOR_WEB_ADMIN_KEY_FILE ?? '';
  if (!URL.canParse(urlText) || !/^https?:$/.test(new URL(urlText).protocol)) {
    throw new SettingsError(`VARIATOR_WEB_ADMIN_URL must be an http address, not "${urlText}".`);
  }
  return { adminUrl: new URL(urlText), adminKey: keyFile === '' ? '' : await readKey(keyFile) };
}

async function readKey(keyFile: string): Promise<string> {
  try {
    return (await readFile(keyFile, 'utf8')).trim();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new SettingsError(`VARIATOR_WEB_ADMIN_KEY_FILE cannot be read: ${reason}`);
  }
}
