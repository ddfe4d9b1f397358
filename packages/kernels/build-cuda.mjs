/**
 * Compiles native/cuda for a GPU with nvcc, and for the emulated device with the host's C++ compiler (`npm run build:cuda`).
 * Plain Node, no dependencies. The emulated flavours are what tests run; the native one needs a CUDA toolkit, 12.4 or later,
 * but no GPU. Without nvcc it says so aloud and builds the emulated one alone.
 */
import { access, mkdir, readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { compileUnits, keyOf, linkObjects, run } from './compile-units.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const nativeFolder = path.join(here, 'native');
const cudaFolder = path.join(nativeFolder, 'cuda');
const outputFolder = path.join(here, 'build', 'cuda');

/** By flavour: the library and the runner. */
export const cudaFiles = Object.fromEntries(
  ['emulated', 'sanitized', 'native'].map((flavour) => [
    flavour,
    {
      library: path.join(
        outputFolder,
        flavour,
        flavour === 'native' ? 'libvariator_cuda.so' : 'libvariator_cuda_emulated.so',
      ),
      runner: path.join(outputFolder, flavour, 'variator-cuda'),
    },
  ]),
);

const hostFlags = [
  '-std=c++17',
  '-fPIC',
  '-pthread',
  '-fvisibility=hidden',
  '-Wall',
  '-Wextra',
  '-Wno-unknown-pragmas',
  '-Wno-psabi',
  '-ffp-contract=off',
];
/** Stops at the first access out of bounds or undefined operation, in kernels as well as in the host's code. */
const sanitizerFlags = [
  '-O1',
  '-g',
  '-fsanitize=address,undefined',
  '-fno-sanitize-recover=all',
  '-fno-omit-frame-pointer',
];
const nvccFlags = [
  '-std=c++17',
  '-O3',
  '-gencode=arch=compute_90a,code=sm_90a',
  '-Xptxas=-v',
  '-Xcompiler=-fPIC,-fvisibility=hidden',
];
/** Folders of native/cuda whose files belong to the runner alone. */
const runnerFolders = ['checks', 'runner'];
/** Files of native/ itself that the library shares with the CPU's engine. */
const sharedSources = ['float_ops.cc', 'logit_rules.cc', 'logprobs.cc', 'sampling.cc', 'tensor.cc'];

/** What is for one kind of device alone. */
const isFor = (flavour, name) =>
  flavour === 'native' ? !/(^|_)emulat(or|ed)(_|\.)|^fiber\./.test(name) : !/(^|_)native(_|\.)/.test(name);

/** A file and all of ours that it includes, directly or not. */
function readBy(file, texts) {
  const seen = new Set([file]);
  for (const one of seen) {
    for (const [, name] of texts.get(one).matchAll(/^#include "([^"]+)"/gm)) {
      const included = path.join(path.dirname(one), name);
      if (texts.has(included)) seen.add(included);
    }
  }
  return [...seen];
}

/** Where toolkits put nvcc, after `--nvcc` and PATH. */
async function findNvcc(preferred) {
  for (const command of preferred
    ? [preferred]
    : ['nvcc', '/usr/local/cuda/bin/nvcc', '/opt/cuda/bin/nvcc']) {
    const { code, output } = await run(command, ['--version']);
    if (code === 0) return { command, version: output };
  }
  return null;
}

/** Folders beside nvcc where a toolkit, or a wheel of one, keeps its libraries. */
async function libraryFlags(nvcc) {
  const root = path.resolve(path.dirname(nvcc.command), '..');
  const flags = [];
  for (const folder of ['lib', 'lib64', 'targets/x86_64-linux/lib']) {
    const isThere = await access(path.join(root, folder)).then(
      () => true,
      () => false,
    );
    if (isThere) flags.push(`-L${path.join(root, folder)}`);
  }
  return flags;
}

async function findHostCompiler() {
  for (const command of ['c++', 'g++', 'clang++']) {
    const { code, output } = await run(command, ['--version']);
    if (code === 0) return { command, version: output };
  }
  throw new Error('Variator needs a C++17 compiler (Debian: apt-get install g++).');
}

async function filesIn(folder) {
  const names = await readdir(folder).catch(() => []);
  return names.sort().map((name) => path.join(folder, name));
}

/**
 * Builds what is out of date.
 * @param {{ flavour?: 'emulated' | 'sanitized' | 'native', nvcc?: string, log?: (line: string) => void, areWarningsShown?: boolean }} options
 * @returns {Promise<{ library: string, runner: string } | null>} null: native was asked for and there is no nvcc
 */
export async function buildCuda(options = {}) {
  const { flavour = 'emulated', log = () => {}, areWarningsShown = false } = options;
  const host = await findHostCompiler();
  const nvcc = flavour === 'native' ? await findNvcc(options.nvcc) : null;
  if (flavour === 'native' && nvcc === null) return null;

  const files = [...(await filesIn(nativeFolder)), ...(await filesIn(cudaFolder))];
  for (const folder of runnerFolders) files.push(...(await filesIn(path.join(cudaFolder, folder))));
  const texts = new Map();
  for (const file of files) if (/\.(h|cuh|cc|cu)$/.test(file)) texts.set(file, await readFile(file, 'utf8'));
  const compilerKey = keyOf(host.version, nvcc?.version ?? '');

  const folder = path.join(outputFolder, flavour);
  await mkdir(folder, { recursive: true });
  const optimisation = flavour === 'sanitized' ? sanitizerFlags : ['-O2'];
  const device = flavour === 'native' ? [] : ['-DVARIATOR_EMULATED=1'];
  const units = [];
  for (const file of files) {
    const name = path.basename(file);
    const isOurs = path.dirname(file) === nativeFolder ? sharedSources.includes(name) : isFor(flavour, name);
    if (!isOurs || !/\.(cc|cu)$/.test(file)) continue;
    const isDevice = nvcc !== null && name.endsWith('.cu');
    const language = name.endsWith('.cu') && !isDevice ? ['-x', 'c++'] : [];
    const tier = name === 'float_ops.cc' ? ['-DVARIATOR_TIER=tier_base', '-ffp-contract=off'] : [];
    const flags = isDevice ? nvccFlags : [...hostFlags, ...device, ...optimisation, ...tier];
    const args = [...flags, '-c', ...language, file];
    const isRunner = runnerFolders.includes(path.basename(path.dirname(file)));
    units.push({
      source: path.relative(here, file),
      object: path.join(folder, `${isRunner ? `${path.basename(path.dirname(file))}.` : ''}${name}.o`),
      command: isDevice ? nvcc.command : host.command,
      args,
      key: keyOf(compilerKey, JSON.stringify(args), ...readBy(file, texts).map((one) => texts.get(one))),
      isRunner,
    });
  }
  await compileUnits(units, {
    log,
    areWarningsShown,
    title: (count) => `Compiling ${count} CUDA units (${flavour}) ...`,
  });

  const command = nvcc?.command ?? host.command;
  const linkFlags = nvcc
    ? ['-cudart=static', ...nvccFlags.slice(2, 3), ...(await libraryFlags(nvcc))]
    : ['-pthread', ...(flavour === 'sanitized' ? sanitizerFlags : [])];
  const link = (linked, args, outputFile) =>
    linkObjects({
      command,
      args: [...args, ...linkFlags],
      objects: [...linked.map((unit) => unit.object), '-ldl'],
      outputFile,
      key: keyOf(JSON.stringify([args, linkFlags]), ...linked.map((unit) => unit.key)),
    });
  const outputs = cudaFiles[flavour];
  await link(
    units.filter(({ isRunner }) => !isRunner),
    ['-shared'],
    outputs.library,
  );
  await link(units, [], outputs.runner);
  return outputs;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const optionOf = (flag) => {
    const at = process.argv.indexOf(flag);
    return at < 0 ? undefined : process.argv[at + 1];
  };
  const nvcc = optionOf('--nvcc');
  const only = optionOf('--flavour');
  const options = { log: (line) => console.log(line), areWarningsShown: process.argv.includes('--warnings') };
  try {
    for (const flavour of only ? [only] : ['emulated', 'native']) {
      const built = await buildCuda({ ...options, flavour, ...(nvcc ? { nvcc } : {}) });
      console.log(built === null ? 'SKIPPED: no nvcc' : `${flavour}: ${built.library}, ${built.runner}`);
    }
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
}
