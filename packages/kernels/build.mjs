/**
 * Compiles native/*.cc into build/variator_kernels.node with the machine's C++17 compiler. Plain Node, no dependencies
 * but the Node-API headers: it runs before anything else is built (`npm run build:native`, the supervisor, `npm test`).
 * Each unit has its own flags, so that code for one instruction set never leaks into another; a unit is compiled again
 * only when its source, a header, its flags or the compiler changed. It refuses to run without a compiler.
 */
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { compileUnits, keyOf, linkObjects, run } from './compile-units.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const sourceFolder = path.join(here, 'native');
const builds = { fast: path.join(here, 'build'), sanitized: path.join(here, 'build', 'sanitized') };
export const addonFile = path.join(builds.fast, 'variator_kernels.node');

export const noCompilerMessage =
  'Variator needs a C++17 compiler (Debian: apt-get install g++; macOS: xcode-select --install).';

const baseFlags = [
  '-std=c++17',
  '-O3',
  '-fPIC',
  '-pthread',
  '-fvisibility=hidden',
  '-ffp-contract=off',
  '-fno-math-errno',
  '-Wall',
  '-Wextra',
  '-Wno-psabi',
  '-DNAPI_VERSION=8',
];
/** Stops at the first access out of bounds, use after free or undefined operation; for tests, under their preloaded runtime. */
const sanitizerFlags = [
  '-O1',
  '-g',
  '-fsanitize=address,undefined',
  '-fno-sanitize-recover=all',
  '-fno-omit-frame-pointer',
];
const avx512Flags = ['-mavx512f', '-mavx512bw', '-mavx512vl', '-mavx512dq'];
/** Files compiled once for every instruction-set tier, each time into a namespace of its own. */
const tieredSources = ['float_ops.cc', 'attention.cc', 'panels_generic.cc', 'probe_loops.cc'];
/** The same, with the machine's fused multiply-adds, which these files ask for by name. */
const fusedSources = ['attention_float32.cc', 'attention_bf16.cc', 'attention_int8.cc'];
/** The compiler's own intrinsics begin with registers that nothing has set. */
const intrinsicsFlags = ['-Wno-uninitialized', '-Wno-maybe-uninitialized'];
/** Files that exist only for x86-64: their units by suffix, with the flags each needs. */
const x86Sources = {
  'attention_int8_avx512vnni.cc': { '': [...avx512Flags, '-mfma', '-mavx512vnni', ...intrinsicsFlags] },
  'panels_avx512vnni.cc': { '': [...avx512Flags, '-mavx512vnni', ...intrinsicsFlags] },
  'panels_avx512bf16.cc': { '': [...avx512Flags, '-mavx512bf16', ...intrinsicsFlags] },
  'panels_maddubs.cc': {
    '.avx2': ['-DVARIATOR_TIER=tier_avx2', '-mavx2', '-mf16c', ...intrinsicsFlags],
    '.avx512': ['-DVARIATOR_TIER=tier_avx512', ...avx512Flags, ...intrinsicsFlags],
  },
};

/** @returns {{ name: string, source: string, flags: string[] }[]} */
function unitsFor(sources, isX86) {
  const tiers = { base: [] };
  if (isX86) Object.assign(tiers, { avx2: ['-mavx2'], avx512: avx512Flags });
  const machine = isX86 ? ['-DVARIATOR_HAS_X86_TIERS=1'] : [];
  const units = [];
  for (const source of sources) {
    const name = path.basename(source, '.cc');
    const isFused = fusedSources.includes(source);
    if (isFused || tieredSources.includes(source)) {
      for (const [tier, flags] of Object.entries(tiers)) {
        const fused = isFused && tier !== 'base' ? ['-mfma', ...intrinsicsFlags] : [];
        units.push({
          name: `${name}.${tier}`,
          source,
          flags: [...machine, `-DVARIATOR_TIER=tier_${tier}`, ...flags, ...fused],
        });
      }
    } else if (source in x86Sources) {
      for (const [suffix, flags] of isX86 ? Object.entries(x86Sources[source]) : []) {
        units.push({ name: `${name}${suffix}`, source, flags: [...machine, ...flags] });
      }
    } else {
      units.push({ name, source, flags: machine });
    }
  }
  return units;
}

async function findCompiler(preferred) {
  for (const command of preferred ? [preferred] : ['c++', 'g++', 'clang++']) {
    const [version, machine] = [await run(command, ['--version']), await run(command, ['-dumpmachine'])];
    if (version.code === 0) return { command, version: version.output, machine: machine.output.trim() };
  }
  return null;
}

/**
 * Builds what is out of date and returns the addon's path.
 * @param {{ log?: (line: string) => void, compiler?: string, areWarningsShown?: boolean, flavour?: 'fast' | 'sanitized' }} options
 *   `compiler`: instead of c++, g++ or clang++
 * @throws Error with one sentence for people: no compiler, no headers, or the compiler's own words
 */
export async function buildNative(options = {}) {
  const { log = () => {}, compiler: preferred = process.env.CXX, areWarningsShown = false } = options;
  const { flavour = 'fast' } = options;
  const buildFolder = builds[flavour];
  const outputFile = path.join(buildFolder, 'variator_kernels.node');
  const flavourFlags = flavour === 'sanitized' ? sanitizerFlags : [];
  const compiler = await findCompiler(preferred);
  if (compiler === null) throw new Error(noCompilerMessage);
  let include;
  try {
    const headersPackage = createRequire(import.meta.url).resolve('node-api-headers/package.json');
    include = path.join(path.dirname(headersPackage), 'include');
  } catch (cause) {
    throw new Error('The Node-API headers are missing: run npm install first.', { cause });
  }
  await mkdir(buildFolder, { recursive: true });

  const files = (await readdir(sourceFolder)).sort();
  const headers = [];
  // The CUDA library's own header is all that the addon knows of it.
  for (const file of [...files.filter((name) => name.endsWith('.h')), 'cuda/variator_cuda.h']) {
    headers.push(file, await readFile(path.join(sourceFolder, file)));
  }
  const headerKey = keyOf(compiler.command, compiler.version, ...headers);
  const units = unitsFor(
    files.filter((name) => name.endsWith('.cc')),
    /^(x86_64|amd64)/.test(compiler.machine),
  );

  for (const unit of units) {
    const source = path.join(sourceFolder, unit.source);
    unit.object = path.join(buildFolder, `${unit.name}.o`);
    unit.command = compiler.command;
    unit.args = [...baseFlags, ...flavourFlags, ...unit.flags, `-I${include}`, '-c', source];
    unit.key = keyOf(headerKey, JSON.stringify(unit.args), await readFile(source));
  }
  await compileUnits(units, {
    log,
    areWarningsShown,
    title: (count) => `Compiling ${count} native units with ${compiler.command} ...`,
  });
  const platform = process.platform === 'darwin' ? ['-undefined', 'dynamic_lookup'] : [];
  const isLinked = await linkObjects({
    command: compiler.command,
    args: ['-shared', '-pthread', ...platform, ...flavourFlags],
    objects: units.map((unit) => unit.object),
    outputFile,
    key: keyOf(units.map((unit) => unit.key).join()),
  });
  if (isLinked) log('The native part is built.');
  return outputFile;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const areWarningsShown = process.argv.includes('--warnings');
  buildNative({ log: (line) => console.log(line), areWarningsShown }).catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
}
