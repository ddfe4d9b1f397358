/** Holds the arrows of the house: imports run downhill, and only the worker loads native code. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Longest matching folder wins. What a room may import at run time, besides itself and npm packages. */
const arrows: Record<string, readonly string[]> = {
  'packages/kernels': [],
  'packages/scheduler': ['packages/kernels'],
  'packages/optimizer': ['packages/scheduler', 'packages/kernels'],
  'packages/optimizer/service': [
    'packages/optimizer',
    'packages/scheduler',
    'packages/kernels',
    'clickhouse',
  ],
  clickhouse: ['packages/scheduler'],
  'apps/web': [],
  'apps/engine': ['packages/optimizer', 'packages/scheduler', 'packages/kernels', 'clickhouse'],
  'apps/engine/config': [],
  'apps/engine/config.ts': ['apps/engine/config'],
  'apps/engine/sqlite-file.ts': [],
  'apps/engine/generation': ['packages/kernels', 'packages/scheduler'],
  'apps/engine/http': [
    'apps/engine/generation',
    'apps/engine/batches',
    'apps/engine/fleet',
    'apps/engine/telemetry',
    'clickhouse',
    'packages/scheduler',
    'packages/kernels',
  ],
  'apps/engine/fleet': ['packages/scheduler', 'packages/kernels', 'clickhouse'],
  'apps/engine/telemetry': ['clickhouse'],
  'apps/engine/batches': ['apps/engine/sqlite-file.ts', 'apps/engine/fleet', 'packages/scheduler'],
  'apps/engine/control': [
    'apps/engine/sqlite-file.ts',
    'apps/engine/fleet',
    'packages/optimizer',
    'packages/scheduler',
    'packages/kernels',
    'clickhouse',
  ],
  'apps/engine/api': [
    'apps/engine/control',
    'apps/engine/fleet',
    'apps/engine/telemetry',
    'packages/optimizer',
    'packages/scheduler',
    'packages/kernels',
    'clickhouse',
  ],
  'apps/engine/worker': [
    'apps/engine/config',
    'apps/engine/config.ts',
    'apps/engine/cli',
    'apps/engine/fleet',
    'packages/optimizer',
    'packages/scheduler',
    'packages/kernels',
    'clickhouse',
  ],
};
/** Types only: erased before anything runs. */
const typeArrows: Record<string, readonly string[]> = {
  'apps/web': ['apps/engine', 'packages', 'clickhouse'],
  'packages/optimizer/service': ['apps/engine'],
  'apps/engine/telemetry': ['clickhouse'],
};
const doors: Record<string, string> = {
  '@variator/kernels': 'packages/kernels',
  '@variator/scheduler': 'packages/scheduler',
  '@variator/optimizer': 'packages/optimizer',
  '@variator/clickhouse': 'clickhouse',
  '@variator/engine': 'apps/engine',
};

interface Import {
  readonly file: string;
  readonly target: string;
  readonly isTypeOnly: boolean;
}

const files = execFileSync(
  'git',
  ['ls-files', '--cached', '--others', '--exclude-standard', '*.ts', '*.tsx', '*.mjs'],
  { cwd: root, encoding: 'utf8' },
)
  .split('\n')
  .filter((file) => file !== '' && !file.startsWith('test/') && !/\.(test|fixture)\.tsx?$/.test(file));

const imports: Import[] = files.flatMap((file) => {
  const text = readFileSync(join(root, file), 'utf8');
  const statements = [
    ...text.matchAll(/^(?:import|export)\s+(type\s+)?(?:[^'";]*?\sfrom\s+)?'([^']+)'/gms),
    ...text.matchAll(/import\(()'([^']+)'\)/g),
  ];
  return statements.flatMap(([statement, typeWord, source = '']) => {
    const door = Object.keys(doors).find((name) => source === name || source.startsWith(`${name}/`));
    const named = /\{([^}]*)\}/.exec(statement ?? '')?.[1] ?? '';
    const isTypeOnly =
      typeWord === 'type ' ||
      (named.trim() !== '' &&
        !/\}\s*,|,\s*\{/.test(statement ?? '') &&
        named.split(',').every((name) => name.trim() === '' || name.trim().startsWith('type ')));
    if (source.startsWith('.')) return [{ file, target: normalize(join(dirname(file), source)), isTypeOnly }];
    if (door !== undefined)
      return [{ file, target: join(doors[door] ?? '', source.slice(door.length)), isTypeOnly }];
    return [];
  });
});

const roomOf = (path: string): string => {
  const rooms = Object.keys(arrows).filter((room) => path === room || path.startsWith(`${room}/`));
  return rooms.sort((a, b) => b.length - a.length)[0] ?? path;
};
const isWithin = (path: string, room: string) => path === room || path.startsWith(`${room}/`);

describe('the arrows of the house', () => {
  it('finds imports to judge', () => {
    expect(imports.length).toBeGreaterThan(50);
  });

  it('lets every room import only what lies downhill', () => {
    const uphill = imports.filter(({ file, target, isTypeOnly }) => {
      const room = roomOf(file);
      // main.ts and the command line join everything.
      if (room === 'apps/engine') return false;
      const allowed = [room, ...(arrows[room] ?? []), ...(isTypeOnly ? (typeArrows[room] ?? []) : [])];
      return (
        !allowed.some((place) => isWithin(target, place)) ||
        (room === 'packages/optimizer' && isWithin(target, 'packages/optimizer/service'))
      );
    });
    expect(uphill.map(({ file, target }) => `${file} -> ${target}`)).toEqual([]);
  });

  it('loads native code in the worker alone', () => {
    const loaders = imports
      .filter(
        ({ target, isTypeOnly }) => !isTypeOnly && /^packages\/kernels\/native(-cuda)?(\.ts)?$/.test(target),
      )
      .map(({ file }) => file);
    expect(
      loaders.filter(
        (file) =>
          !file.startsWith('apps/engine/worker/') &&
          !file.startsWith('apps/engine/cli/paths') &&
          !file.startsWith('packages/kernels/'),
      ),
    ).toEqual([]);
  });

  it('reads the environment in config.ts alone', () => {
    const readers = files.filter((file) =>
      /\bprocess\.env\b/.test(readFileSync(join(root, file), 'utf8').replace(/^\s*(\/?\*|\/\/).*$/gm, '')),
    );
    expect(
      readers.filter(
        (file) =>
          !/^apps\/engine\/config\.ts$|^apps\/web\/server-settings\.ts$|build\.mjs$|serve\.mjs$/.test(file),
      ),
    ).toEqual([]);
  });

  it('has no circle of files', () => {
    const graph = new Map<string, string[]>();
    for (const { file, target, isTypeOnly } of imports)
      if (!isTypeOnly) graph.set(file, [...(graph.get(file) ?? []), target]);
    const done = new Set<string>();
    const visit = (file: string, road: readonly string[]): string[] | null => {
      const at = road.indexOf(file);
      if (at >= 0) return [...road.slice(at), file];
      if (done.has(file)) return null;
      for (const next of graph.get(file) ?? []) {
        const circle = visit(next, [...road, file]);
        if (circle) return circle;
      }
      done.add(file);
      return null;
    };
    for (const file of graph.keys()) expect(visit(file, [])).toBeNull();
  });
});
