/**
 * Builds the dashboard into one folder that runs by itself (.next/standalone), and only when something it is made of
 * has changed. Called by `npm start` and by `npm run build` here. Needs no network and asks for none.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { cp, link, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join, relative } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const webFolder = fileURLToPath(new URL('./', import.meta.url));
const repositoryRoot = fileURLToPath(new URL('../../', import.meta.url));
const hashFile = join(webFolder, '.next', 'variator-source-hash');
const standaloneFolder = join(webFolder, '.next', 'standalone', 'apps', 'web');
/** Holds the process id of the build under way; outside `.next`, which a build empties. */
const lockFile = join(webFolder, 'build', 'lock');
const KEPT_LINES = 40;

/** What never changes a page: outputs, dependencies (the lock file names them), tests, what runs beside the build. */
const ignoredNames = new Set(['.next', 'node_modules', 'build', 'next-env.d.ts', 'serve.mjs']);

/**
 * @param {{ log: (line: string) => void }} options `log` receives one line at a time, for people
 * @returns {Promise<{ isBuilt: boolean }>} false where the pages were already up to date
 * @throws {Error} with the compiler's last lines
 */
export async function buildWeb({ log }) {
  const hash = await sourceHash();
  if (await isUpToDate(hash)) return { isBuilt: false };
  await takeLock(log);
  try {
    // Whoever held the lock may have built just this.
    if (await isUpToDate(hash)) return { isBuilt: false };
    await build(hash, log);
    return { isBuilt: true };
  } finally {
    await rm(lockFile, { force: true });
  }
}

/** @param {string} hash */
async function isUpToDate(hash) {
  return (await storedHash()) === hash && existsSync(join(standaloneFolder, 'server.js'));
}

/** @param {string} hash @param {(line: string) => void} log */
async function build(hash, log) {
  // Without its hash a build that is interrupted counts as none.
  await rm(hashFile, { force: true });
  await rm(join(webFolder, '.next', 'standalone'), { recursive: true, force: true });
  await runNext(log);
  await cp(join(webFolder, '.next', 'static'), join(standaloneFolder, '.next', 'static'), {
    recursive: true,
  });
  if (existsSync(join(webFolder, 'public'))) {
    await cp(join(webFolder, 'public'), join(standaloneFolder, 'public'), { recursive: true });
  }
  await mkdir(join(webFolder, '.next'), { recursive: true });
  await writeFile(hashFile, hash);
}

/** Two starts at once build once: Next.js refuses a second build, and would build into the first one's folder. */
async function takeLock(/** @type {(line: string) => void} */ log) {
  await mkdir(join(webFolder, 'build'), { recursive: true });
  const own = `${lockFile}-${process.pid}`;
  await writeFile(own, String(process.pid));
  for (let hasSaid = false; ; ) {
    try {
      // Linked, so that the lock has its holder's id from its first moment on.
      await link(own, lockFile);
      await rm(own);
      return;
    } catch (error) {
      if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'EEXIST') throw error;
    }
    if (!isRunning(await holder())) {
      await rm(lockFile, { force: true });
      continue;
    }
    if (!hasSaid) log('Waiting for a build that is under way');
    hasSaid = true;
    await pause(200);
  }
}

async function holder() {
  return existsSync(lockFile) ? Number(await readFile(lockFile, 'utf8').catch(() => '0')) : 0;
}

/** @param {number} pid */
function isRunning(pid) {
  if (!(pid > 0)) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // Another user's process answers with EPERM.
    return /** @type {NodeJS.ErrnoException} */ (error).code === 'EPERM';
  }
}

async function sourceHash() {
  const files = [join(repositoryRoot, 'package-lock.json'), ...(await sourceFiles(webFolder))];
  const hash = createHash('sha256').update(process.version);
  for (const file of files) {
    if (!existsSync(file)) continue;
    hash.update(`\0${relative(repositoryRoot, file)}\0`).update(await readFile(file));
  }
  return hash.digest('hex');
}

/** @param {string} folder @returns {Promise<string[]>} in one order everywhere */
async function sourceFiles(folder) {
  const entries = await readdir(folder, { withFileTypes: true });
  const files = [];
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (ignoredNames.has(entry.name) || /\.test\.ts$|\.tsbuildinfo$/.test(entry.name)) continue;
    const path = join(folder, entry.name);
    if (entry.isDirectory()) files.push(...(await sourceFiles(path)));
    else if (entry.isFile()) files.push(path);
  }
  return files;
}

async function storedHash() {
  return existsSync(hashFile) ? readFile(hashFile, 'utf8') : '';
}

/** @param {(line: string) => void} log */
function runNext(log) {
  const next = createRequire(import.meta.url).resolve('next/dist/bin/next');
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [next, 'build'], {
      cwd: webFolder,
      // NODE_ENV of whoever builds (a test runner says "test") must not decide what is built.
      env: { ...process.env, NEXT_TELEMETRY_DISABLED: '1', NODE_ENV: 'production' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    /** @type {string[]} */
    const lines = [];
    const keep = (/** @type {Buffer} */ chunk) => {
      for (const line of chunk.toString('utf8').split('\n')) {
        const text = line.trimEnd();
        if (text === '') continue;
        lines.push(text);
        if (lines.length > KEPT_LINES) lines.shift();
        log(text);
      }
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    child.once('error', reject);
    child.once('close', (code, signal) => {
      if (code === 0) resolve(undefined);
      else
        reject(
          new Error(
            `The dashboard could not be built (${signal ?? `exit code ${code}`}):\n${lines.join('\n')}`,
          ),
        );
    });
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { isBuilt } = await buildWeb({ log: (line) => console.log(line) });
  console.log(isBuilt ? 'The dashboard is built.' : 'The dashboard is up to date.');
}
