/**
 * Who runs below a process, read from /proc: the product's parts are the supervisor's children. Used by the tests of
 * faults; Linux only, so those tests ask `canSeeProcesses` first.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';

export interface SeenProcess {
  readonly pid: number;
  readonly parentPid: number;
  readonly commandLine: string;
}

export const canSeeProcesses = existsSync('/proc/self/stat');

/** Every process that is alive; one that has ended and waits to be reaped is not. */
export function livingProcesses(): SeenProcess[] {
  return readdirSync('/proc').flatMap((entry) => {
    if (!/^\d+$/.test(entry)) return [];
    try {
      // "PID (any name) STATE PARENT ..."
      const stat = readFileSync(`/proc/${entry}/stat`, 'utf8');
      const [state = 'Z', parentPid = '0'] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      if (state === 'Z' || state === 'X') return [];
      const commandLine = readFileSync(`/proc/${entry}/cmdline`, 'utf8').split('\0').join(' ');
      return [{ pid: Number(entry), parentPid: Number(parentPid), commandLine }];
    } catch {
      // It ended while we looked.
      return [];
    }
  });
}

/** Children, their children and so on. */
export function descendantsOf(pid: number): SeenProcess[] {
  const all = livingProcesses();
  const found: SeenProcess[] = [];
  const visit = (parent: number): void => {
    for (const each of all) {
      if (each.parentPid !== parent) continue;
      found.push(each);
      visit(each.pid);
    }
  };
  visit(pid);
  return found;
}

const commandLines = {
  clickhouse: /variator-clickhouse/,
  gateway: /apps\/engine\/main\.ts/,
  worker: /apps\/engine\/worker\/main\.ts/,
  optimizer: /packages\/optimizer\/service\/main\.ts/,
  // Next.js gives its process a title of its own.
  dashboard: /apps\/web\/serve\.mjs|^next-server/,
} as const;

export type PartName = keyof typeof commandLines;

/** The part's process below this supervisor; null while there is none. */
export function partPid(supervisorPid: number, part: PartName): number | null {
  const found = descendantsOf(supervisorPid).find(({ commandLine }) => commandLines[part].test(commandLine));
  return found?.pid ?? null;
}
