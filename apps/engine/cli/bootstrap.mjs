#!/usr/bin/env node
/**
 * The first file that runs in a clean clone, so plain JavaScript without dependencies: installs what is missing, builds
 * what the command needs, then hands over to main.ts in this same process. Called by `npm start`, `npm test`,
 * `npm run bench` and `npx variator`. Everything here is skipped when it is already done.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const [command = 'start', ...rest] = process.argv.slice(2);

const major = Number(process.versions.node.split('.')[0]);
if (major < 20) fail(`Variator needs Node 20 or newer; this is ${process.version}.`);

/** What a command needs besides the installed packages. */
const needs = {
  start: ['native', 'clickhouse', 'web'],
  test: ['native', 'clickhouse', 'web', 'cuda'],
  bench: ['native', 'clickhouse', 'web'],
  fuzz: ['native', 'clickhouse', 'web'],
  paths: ['native'],
  worker: ['native'],
}[isHelp() ? 'help' : command];

try {
  await install();
  for (const part of needs ?? []) await build(part);
} catch (error) {
  fail(error instanceof Error ? error.message : String(error));
}
const { register } = await import('tsx/esm/api');
register();
const { runCommand } = await import('./main.ts');
await runCommand(command, rest, root);

function isHelp() {
  return (
    command === '--help' ||
    command === '-h' ||
    command === 'help' ||
    rest.includes('--help') ||
    rest.includes('-h')
  );
}

/** Installs when the lock file is not the one that was installed. */
async function install() {
  const lock = createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .digest('hex');
  const marker = join(root, 'node_modules', '.variator-installed');
  if (existsSync(marker) && readFileSync(marker, 'utf8') === lock) return;
  const done = progress('Installing packages');
  const { code, tail } = await run('npm', [
    'install',
    '--ignore-scripts',
    '--no-audit',
    '--no-fund',
    '--loglevel=error',
  ]);
  if (code !== 0) throw new Error(`npm install failed:\n${tail}`);
  // npm may tidy the lock file while it installs.
  writeFileSync(
    marker,
    createHash('sha256')
      .update(readFileSync(join(root, 'package-lock.json')))
      .digest('hex'),
  );
  done();
}

async function build(part) {
  const parts = {
    native: ['Compiling the kernels', 'packages/kernels/build.mjs', 'buildNative'],
    clickhouse: ['Compiling the ClickHouse host', 'clickhouse/build.mjs', 'buildClickHouseHost'],
    web: ['Building the dashboard', 'apps/web/build.mjs', 'buildWeb'],
    cuda: [
      'Compiling the CUDA kernels for the emulated device',
      'packages/kernels/build-cuda.mjs',
      'buildCuda',
    ],
  };
  const [label, file, name] = parts[part];
  const module = await import(pathToFileURL(join(root, file)).href);
  const done = progress(label);
  await module[name]({ log: () => {} });
  done();
}

/** A line for whatever takes more than a second: alive on a terminal, twice a minute elsewhere. */
function progress(label) {
  const startedAt = Date.now();
  let isShown = false;
  const isTerminal = process.stdout.isTTY === true;
  const show = () => {
    const seconds = Math.round((Date.now() - startedAt) / 1000);
    if (isTerminal) process.stdout.write(`\r\x1b[K${label} ... ${seconds} s`);
    else if (!isShown || seconds % 30 === 0) console.log(`${label} ... ${seconds} s`);
    isShown = true;
  };
  const timer = setInterval(show, 1000);
  return () => {
    clearInterval(timer);
    const seconds = ((Date.now() - startedAt) / 1000).toFixed(1);
    if (isShown) process.stdout.write(`${isTerminal ? '\r\x1b[K' : ''}${label}: done in ${seconds} s\n`);
  };
}

/** Runs a program in the repository; resolves with its exit code and the end of what it printed. */
function run(program, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
    let tail = '';
    const keep = (data) => {
      tail = (tail + data).slice(-4000);
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, tail }));
  });
}

function fail(sentence) {
  console.error(sentence);
  process.exit(1);
}
