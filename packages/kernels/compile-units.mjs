/**
 * Compiles units into objects and links them, for build.mjs and build-cuda.mjs: what is up to date by its key (sources,
 * headers, flags, compiler) is left alone, and an output is put in its place whole, never written into. Refuses nothing
 * quietly: the compiler's own words are the error.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFile, rename, rm, writeFile } from 'node:fs/promises';

/** Runs a command; never throws. `code` is null where it could not be started. */
export function run(command, args) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    child.stdout.on('data', (data) => {
      output += data;
    });
    child.stderr.on('data', (data) => {
      output += data;
    });
    child.on('error', (error) => resolve({ code: null, output: error.message }));
    child.on('close', (code) => resolve({ code, output }));
  });
}

/** A key of anything that decides an output. */
export function keyOf(...parts) {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest('hex');
}

async function sameKey(file, key) {
  return (await readFile(file, 'utf8').catch(() => '')) === key;
}

/**
 * Compiles the units that are out of date, two at a time.
 * @param {{ source: string, object: string, command: string, args: string[], key: string }[]} units `args` without output
 * @param {{ log: (line: string) => void, areWarningsShown: boolean, title: (count: number) => string }} options
 * @returns {Promise<number>} how many were compiled
 */
export async function compileUnits(units, { log, areWarningsShown, title }) {
  const queue = [];
  for (const unit of units) if (!(await sameKey(`${unit.object}.key`, unit.key))) queue.push(unit);
  const staleCount = queue.length;
  if (staleCount > 0) log(title(staleCount));
  const compileNext = async () => {
    for (let unit = queue.shift(); unit !== undefined; unit = queue.shift()) {
      const partial = `${unit.object}.${process.pid}`;
      const { code, output } = await run(unit.command, [...unit.args, '-o', partial]);
      if (code !== 0) {
        queue.length = 0;
        throw new Error(`${unit.command} could not compile ${unit.source}:\n${output}`);
      }
      if (areWarningsShown && output.trim() !== '') log(output.trim());
      await rename(partial, unit.object);
      await writeFile(`${unit.object}.key`, unit.key);
    }
  };
  await Promise.all([compileNext(), compileNext()]);
  return staleCount;
}

/**
 * Links objects into `outputFile` where its key or an object has changed.
 * @returns {Promise<boolean>} whether it was linked
 */
export async function linkObjects({ command, args, objects, outputFile, key }) {
  if (await sameKey(`${outputFile}.key`, key)) return false;
  const partial = `${outputFile}.${process.pid}`;
  const linked = await run(command, [...args, ...objects, '-o', partial]);
  if (linked.code !== 0) throw new Error(`${command} could not link ${outputFile}:\n${linked.output}`);
  // A running process may have the old file mapped: put the new one in its place, never write into it.
  await rm(outputFile, { force: true });
  await rename(partial, outputFile);
  await writeFile(`${outputFile}.key`, key);
  return true;
}
