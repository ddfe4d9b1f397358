/**
 * `npm test`: types, formatter and linter, then every test; the last line is `N passed, N failed, N skipped`. Called by
 * the command line's main.ts once everything is installed and built. Flags go to vitest: `npm test -- packages/scheduler`.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ensureBrowser } from './browser.ts';
import { runSanitized } from './run-sanitized.ts';

interface VitestReport {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly numTodoTests: number;
  readonly numFailedTestSuites: number;
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly assertionResults: readonly unknown[];
  }[];
}

export async function runTests(argv: readonly string[], root: string): Promise<number> {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  const bin = (name: string) => join(root, 'node_modules', '.bin', name);
  if (argv.length === 0) {
    const checks: [string, string, string[]][] = [
      ['types are strict in engine, packages and tests', bin('tsc'), ['--noEmit', '-p', 'tsconfig.json']],
      ['types are strict in the dashboard', bin('tsc'), ['--noEmit', '-p', 'apps/web/tsconfig.json']],
      ['every file is formatted and linted', bin('biome'), ['check', '--error-on-warnings', '.']],
    ];
    for (const [sentence, program, args] of checks) {
      const code = await run(program, args, root);
      counts[code === 0 ? 'passed' : 'failed'] += 1;
      console.log(`${code === 0 ? '✓' : '✗'} ${sentence}`);
    }
    if (ensureBrowser(root) === null) console.log('SKIPPED: no browser could be found or installed');
  }

  const folder = mkdtempSync(join(tmpdir(), 'variator-test-'));
  const reportFile = join(folder, 'report.json');
  try {
    const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${reportFile}`];
    const code = await run(
      process.execPath,
      [join(root, 'node_modules/vitest/vitest.mjs'), 'run', ...reporters, ...argv],
      root,
    );
    const report = JSON.parse(readFileSync(reportFile, 'utf8')) as VitestReport;
    counts.passed += report.numPassedTests;
    counts.failed += report.numFailedTests;
    counts.skipped += report.numPendingTests + report.numTodoTests;
    // A file that does not even load has no test to count.
    for (const { name, status, assertionResults } of report.testResults) {
      if (status !== 'failed' || assertionResults.length > 0) continue;
      counts.failed += 1;
      console.log(`✗ ${name} could not be run`);
    }
    if (code !== 0 && counts.failed === 0) counts.failed = 1;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  if (argv.length === 0) {
    const outcome = await runSanitized(root);
    if ('skippedBecause' in outcome) {
      counts.skipped += 1;
      console.log(`SKIPPED: the native tests under sanitizers: ${outcome.skippedBecause}`);
    } else {
      counts[outcome.code === 0 ? 'passed' : 'failed'] += 1;
      console.log(`${outcome.code === 0 ? '✓' : '✗'} the native tests pass under AddressSanitizer and UBSan`);
    }
  }
  console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
  return counts.failed === 0 ? 0 : 1;
}

function run(program: string, args: readonly string[], cwd: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd, stdio: ['ignore', 'inherit', 'inherit'] });
    child.on('error', reject);
    child.on('close', (code) => resolve(code ?? 1));
  });
}
