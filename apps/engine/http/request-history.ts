/**
 * What tenants and their sessions have done of late, as evidence for a request's tier. One per server; fed by
 * answer-endpoint.ts. Bounded: so many names, so many requests of each; whoever was silent longest is forgotten first.
 */
import type { Behaviour } from '../generation/service-tier.ts';

interface Memory {
  /** Of the last requests, the oldest first. */
  readonly wereStreamed: boolean[];
  readonly pausesMs: number[];
  openCount: number;
  meanOpenCount: number;
  lastEndedAt: number | null;
}

const MOST_SESSIONS = 4096;
const MOST_TENANTS = 1024;
const SESSION_REQUESTS = 8;
const TENANT_REQUESTS = 64;
/** Weight of the newest request in the mean number of open ones. */
const MEAN_WEIGHT = 0.1;

export class RequestHistory {
  /** The longest silent first. */
  readonly #sessions = new Map<string, Memory>();
  readonly #tenants = new Map<string, Memory>();

  /** What was before it; then the request counts, too. Returns what to call when it has ended. */
  arrived(
    who: { readonly tenant: string; readonly session: string },
    isStreamed: boolean,
    now: number,
  ): {
    readonly session: Behaviour | null;
    readonly tenant: Behaviour | null;
    readonly ended: (now: number) => void;
  } {
    const tenant = memoryOf(this.#tenants, who.tenant, MOST_TENANTS);
    const session =
      who.session === ''
        ? null
        : memoryOf(this.#sessions, JSON.stringify([who.tenant, who.session]), MOST_SESSIONS);
    const before = {
      session: session === null ? null : behaviourOf(session, now),
      tenant: behaviourOf(tenant, now),
    };
    note(tenant, isStreamed, TENANT_REQUESTS, now);
    if (session !== null) note(session, isStreamed, SESSION_REQUESTS, now);
    return {
      ...before,
      ended: (at) => {
        for (const memory of [tenant, session]) {
          if (memory === null) continue;
          memory.openCount -= 1;
          memory.lastEndedAt = at;
        }
      },
    };
  }
}

function memoryOf(memories: Map<string, Memory>, name: string, most: number): Memory {
  const memory = memories.get(name) ?? {
    wereStreamed: [],
    pausesMs: [],
    openCount: 0,
    meanOpenCount: 0,
    lastEndedAt: null,
  };
  memories.delete(name);
  memories.set(name, memory);
  if (memories.size > most) {
    for (const oldest of memories.keys()) {
      memories.delete(oldest);
      break;
    }
  }
  return memory;
}

function note(memory: Memory, isStreamed: boolean, mostRequests: number, now: number): void {
  const pauseMs = pauseOf(memory, now);
  if (pauseMs !== null) keep(memory.pausesMs, pauseMs, mostRequests);
  keep(memory.wereStreamed, isStreamed, mostRequests);
  memory.openCount += 1;
  memory.meanOpenCount += MEAN_WEIGHT * (memory.openCount - memory.meanOpenCount);
}

/** Only where nothing was open: what overlaps does not pause. */
const pauseOf = ({ lastEndedAt, openCount }: Memory, now: number): number | null =>
  lastEndedAt === null || openCount > 0 ? null : Math.max(0, now - lastEndedAt);

function behaviourOf(memory: Memory, now: number): Behaviour | null {
  if (memory.wereStreamed.length === 0) return null;
  const pauseMs = pauseOf(memory, now);
  const pausesMs = [...memory.pausesMs, ...(pauseMs === null ? [] : [pauseMs])].sort((a, b) => a - b);
  return {
    requestCount: memory.wereStreamed.length,
    streamedCount: memory.wereStreamed.filter(Boolean).length,
    medianPauseMs: pausesMs[Math.floor(pausesMs.length / 2)] ?? null,
    meanOpenCount: memory.meanOpenCount,
  };
}

function keep<T>(list: T[], value: T, most: number): void {
  list.push(value);
  if (list.length > most) list.shift();
}
