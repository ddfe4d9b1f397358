/** Which command does what. Called by bootstrap.mjs once everything it needs is installed and built. */
import { UnsafeListenError } from '../api/safe-to-listen.ts';
import { ConfigError } from '../config/config-error.ts';
import { helpText } from '../config/options.ts';

type Command = (argv: readonly string[], root: string) => Promise<number>;

/** Loaded when asked for, so that `--help` starts at once. */
const commands: Record<string, () => Promise<Command>> = {
  start: async () => (await import('./start.ts')).start,
  worker: async () => (await import('./worker.ts')).workerCommand,
  replay: async () => (await import('./replay.ts')).replayCommand,
  paths: async () => (await import('./paths.ts')).pathsCommand,
  proposals: async () => (await import('./proposals.ts')).proposalsCommand,
  status: async () => (await import('./status.ts')).statusCommand,
  test: async () => (await import('../../../test/run-tests.ts')).runTests,
  fuzz: async () => (await import('../../../test/fuzz/run-fuzz.ts')).runFuzz,
  bench: async () => (await import('../../../test/bench/run-benches.ts')).runBenches,
};

/** Ends the process with the command's exit code; what cannot be used becomes one sentence and exit code 1. */
export async function runCommand(name: string, argv: readonly string[], root: string): Promise<void> {
  const isHelp =
    ['--help', '-h', 'help'].includes(name) ||
    (name !== 'replay' && (argv.includes('--help') || argv.includes('-h')));
  if (isHelp) {
    console.log(helpText());
    process.exit(0);
  }
  const load = commands[name];
  if (!load) {
    console.error(
      `There is no command "${name}"; there are ${Object.keys(commands).join(', ')}. --help explains.`,
    );
    process.exit(1);
  }
  try {
    process.exit(await (await load())(argv, root));
  } catch (error) {
    if (!(error instanceof ConfigError) && !(error instanceof UnsafeListenError)) throw error;
    console.error(error.message);
    process.exit(1);
  }
}
