/**
 * Runs the built dashboard: `node apps/web/serve.mjs --port 3000 --host 127.0.0.1`. Started by the supervisor, which
 * gives VARIATOR_WEB_ADMIN_URL and VARIATOR_WEB_ADMIN_KEY_FILE; ends on SIGTERM or when its stdin ends, so that it
 * never outlives a parent that was killed. Builds nothing.
 */
import { existsSync, fstatSync } from 'node:fs';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

const server = fileURLToPath(new URL('.next/standalone/apps/web/server.js', import.meta.url));

function refuse(/** @type {string} */ sentence) {
  console.error(sentence);
  process.exit(1);
}

const { values } = parseArgs({
  options: { port: { type: 'string', default: '3000' }, host: { type: 'string', default: '127.0.0.1' } },
});
const port = Number(values.port);
if (!Number.isInteger(port) || port < 0 || port > 65_535) {
  refuse(`--port must be a whole number from 0 to 65535, not "${values.port}".`);
}
if (!existsSync(server)) refuse('The dashboard is not built; `npm run build:web` builds it.');

// A page that polls keeps its connections open; waiting for them would make every end slow, and nothing is lost.
for (const signal of /** @type {const} */ (['SIGTERM', 'SIGINT', 'SIGHUP'])) {
  process.on(signal, () => process.exit(0));
}
const stdin = fstatSync(0);
if (stdin.isFIFO() || stdin.isSocket()) {
  process.stdin.on('end', () => process.exit(0)).on('error', () => process.exit(0));
  process.stdin.resume();
}

// Next.js' standalone server takes its address from the environment.
Object.assign(process.env, {
  PORT: String(port),
  HOSTNAME: values.host,
  NODE_ENV: 'production',
  NEXT_TELEMETRY_DISABLED: '1',
  NEXT_MANUAL_SIG_HANDLE: 'true',
});
await import(pathToFileURL(server).href);
