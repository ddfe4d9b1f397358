/**
 * One part of the product as a child process: started, watched, started again when it dies, ended. Used by start.ts.
 * A child leads its own session, so that a terminal's Ctrl-C reaches only the supervisor, and it holds a pipe as its
 * stdin, so that it ends by itself when the supervisor is killed.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { ALIVE } from './parent-watch.ts';

/** A child exits with this when starting it again cannot help: its last line on stderr says why. */
export const FATAL_EXIT_CODE = 78;
/** Begins that last line: the supervisor says it once, at its own end, and not among the child's lines as well. */
export const CANNOT_RUN = 'cannot run: ';

export interface PartSpec {
  readonly name: string;
  readonly command: string;
  /** Given again on every start; the count of restarts so far decides what only the first one gets. */
  readonly args: (restartCount: number) => readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
  /** True: it says that it lives (see parent-watch.ts); where it falls silent it hangs, and is killed and started again. */
  readonly isWatched?: true;
}

export interface Part {
  readonly name: string;
  pid(): number | null;
  restartCount(): number;
  /** From now on its end is expected: it is not started again. */
  retire(): void;
  /** SIGTERM, then SIGKILL after the limit. Resolves when the process is gone. */
  stop(limitMs: number): Promise<void>;
}

const WATCH_MS = 500;
/** Turns of the watch, not a span of time: where this process itself stood still, no turns passed. */
const MOST_SILENT_TURNS = 10;
const LEAST_PAUSE_MS = 100;
const MOST_PAUSE_MS = 5000;
/** A child that lived this long starts again without a pause. */
const HEALTHY_MS = 10_000;

/** Kills a child that has said that it lives and then does not for too long. Returns how to end the watch. */
function watchForSilence(child: ChildProcess, log: (line: string) => void): () => void {
  let silentTurns: number | null = null;
  child.on('message', (message) => {
    if (message === ALIVE) silentTurns = 0;
  });
  const watch = setInterval(() => {
    if (silentTurns === null) return;
    silentTurns += 1;
    if (silentTurns !== MOST_SILENT_TURNS) return;
    log(`has not moved for ${(MOST_SILENT_TURNS * WATCH_MS) / 1000} s; killing it`);
    child.kill('SIGKILL');
  }, WATCH_MS);
  watch.unref();
  return () => clearInterval(watch);
}

/**
 * @param log receives the child's lines and what happens to it
 * @param onFatal is called once with a sentence when the child says that it cannot run
 */
export function startPart(
  spec: PartSpec,
  log: (line: string) => void,
  onFatal: (sentence: string) => void,
): Part {
  let child: ChildProcess | null = null;
  let isStopping = false;
  let restarts = 0;
  let pauseMs = LEAST_PAUSE_MS;
  let timer: NodeJS.Timeout | null = null;
  let gone: Promise<void> = Promise.resolve();

  function launch(): void {
    const startedAt = performance.now();
    let lastLine = '';
    const started = spawn(spec.command, spec.args(restarts), {
      cwd: spec.cwd,
      env: spec.env as NodeJS.ProcessEnv,
      stdio: spec.isWatched ? ['pipe', 'pipe', 'pipe', 'ipc'] : ['pipe', 'pipe', 'pipe'],
      detached: true,
    });
    const unwatch = spec.isWatched ? watchForSilence(started, log) : () => {};
    child = started;
    // A child that is gone closes its end; writing is never done, so the error says nothing more than `exit` does.
    started.stdin?.on('error', (error) => log(`${spec.name}: ${error.message}`));
    for (const stream of [started.stdout, started.stderr]) {
      if (!stream) continue;
      createInterface({ input: stream }).on('line', (line) => {
        if (line.trim() !== '') lastLine = line;
        if (!line.startsWith(CANNOT_RUN)) log(line);
      });
    }
    gone = new Promise((resolve) => {
      started.once('error', (error) => {
        onFatal(`${spec.name} cannot be started: ${error.message}`);
        resolve();
      });
      started.once('close', (code, signal) => {
        child = null;
        unwatch();
        resolve();
        if (isStopping) return;
        if (code === FATAL_EXIT_CODE) {
          onFatal(lastLine.startsWith(CANNOT_RUN) ? lastLine.slice(CANNOT_RUN.length) : lastLine);
          return;
        }
        pauseMs =
          performance.now() - startedAt > HEALTHY_MS ? LEAST_PAUSE_MS : Math.min(pauseMs * 2, MOST_PAUSE_MS);
        log(`ended (${signal ?? `exit code ${code}`}); starting it again`);
        restarts += 1;
        timer = setTimeout(launch, pauseMs);
      });
    });
  }

  launch();
  return {
    name: spec.name,
    pid: () => child?.pid ?? null,
    restartCount: () => restarts,
    retire() {
      isStopping = true;
    },
    async stop(limitMs) {
      isStopping = true;
      if (timer) clearTimeout(timer);
      const running = child;
      if (!running) return;
      running.kill('SIGTERM');
      const killer = setTimeout(() => running.kill('SIGKILL'), limitMs);
      await gone;
      clearTimeout(killer);
    },
  };
}
