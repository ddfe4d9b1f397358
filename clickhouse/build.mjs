/**
 * Compiles native/variator_clickhouse.c into build/variator-clickhouse with the machine's C compiler. Called by the
 * command line before the first start and by tests; also `node clickhouse/build.mjs`. Plain Node, because it runs before
 * anything is compiled or installed. Compiles nothing when the source it was built from has not changed.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { access, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const here = fileURLToPath(new URL('.', import.meta.url));
const source = join(here, 'native', 'variator_clickhouse.c');
const compilers = ['cc', 'gcc', 'clang'];
const flags = ['-O2', '-Wall', '-Wextra', '-std=gnu11'];
const libraries = process.platform === 'linux' ? ['-ldl', '-lpthread'] : [];

const isThere = (file) =>
  access(file).then(
    () => true,
    () => false,
  );

/** The first compiler that answers, or null. */
async function findCompiler() {
  for (const compiler of compilers) {
    try {
      await run(compiler, ['--version'], { timeout: 20_000 });
      return compiler;
    } catch (error) {
      if (error.code !== 'ENOENT')
        throw new Error(`The C compiler ${compiler} does not work: ${error.message}`);
    }
  }
  return null;
}

/**
 * @param {{ log?: (line: string) => void }} [options]
 * @returns {Promise<string>} the path of the host's binary
 */
export async function buildClickHouseHost({ log = () => {} } = {}) {
  const folder = join(here, 'build');
  const binary = join(folder, 'variator-clickhouse');
  const stampFile = join(folder, 'variator-clickhouse.stamp');
  const stamp = createHash('sha256')
    .update(await readFile(source))
    .update([process.platform, process.arch, ...flags].join(' '))
    .digest('hex');
  const builtFrom = await readFile(stampFile, 'utf8').catch(() => '');
  if (builtFrom === stamp && (await isThere(binary))) return binary;

  const compiler = await findCompiler();
  if (compiler === null) {
    throw new Error(
      `No C compiler was found (tried ${compilers.join(', ')}). Install one (Debian and Ubuntu: apt-get install ` +
        'build-essential; macOS: xcode-select --install), or name a running ClickHouse in VARIATOR_CLICKHOUSE_URL.',
    );
  }
  log(`compiling the ClickHouse host with ${compiler}`);
  await mkdir(folder, { recursive: true });
  // Into a file of this process's own, then renamed: two builds at once, or one cut short, leave no half binary.
  const draft = `${binary}.${process.pid}`;
  try {
    await run(compiler, [...flags, source, '-o', draft, ...libraries], { timeout: 120_000 });
    await rename(draft, binary);
  } catch (error) {
    throw new Error(`Compiling the ClickHouse host failed: ${error.stderr || error.message}`);
  } finally {
    await rm(draft, { force: true });
  }
  await writeFile(stampFile, stamp);
  return binary;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  buildClickHouseHost({ log: (line) => console.log(line) }).then(
    (binary) => console.log(binary),
    (error) => {
      console.error(error.message);
      process.exitCode = 1;
    },
  );
}
