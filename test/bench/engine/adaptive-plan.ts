/**
 * The workload and the rules of the bench adaptive.ts as data, decided before it was first measured: phases, paths, seeds,
 * limits, and what counts. A change here makes all results of before another bench's (they are kept with its hash).
 */
import { fastestOfEachKind, variantOf } from '@variator/kernels/catalogue';
import { type Envelope, type ExecutionPath, namedPaths } from '@variator/kernels/execution-path';

export interface AdaptivePhase {
  readonly name: string;
  /** Of the window that counts. */
  readonly durationMs: number;
  /**
   * closed: so many clients, each of whom asks again `thinkMs` after its answer ended. open: arrivals whose gaps are
   * gamma-distributed with this coefficient of variation.
   */
  readonly arrivals:
    | { readonly kind: 'closed'; readonly clientCount: number; readonly thinkMs: number }
    | { readonly kind: 'open'; readonly perSecond: number; readonly gapCv: number };
  /** words: common ones, no two prompts alike. agent: a tool's listing, quoted and begun once more. */
  readonly text: 'words' | 'agent';
  /** Of the part that is a prompt's own, drawn evenly. */
  readonly promptTokens: readonly [least: number, most: number];
  /** Before it, one of so many documents of so many tokens. */
  readonly documents: { readonly count: number; readonly tokens: number } | null;
  /** Drawn log-normally. */
  readonly answerTokens: { readonly median: number; readonly sigma: number; readonly most: number };
  readonly temperature: number;
  /** Of the requests whose tokens count; null: every token counts, those of prompts too. */
  readonly objectives: { readonly ttftMs: number; readonly itlMs: number } | null;
  readonly isBesideBusyProcess: boolean;
}

/** Traffic of the phase before runs so long until the border; its streams go on beyond it, what had not begun goes away. */
export const LEAD_MS = 500;
/** On these the path of each phase is chosen; on the others it is measured. */
export const CHOOSING_SEEDS = [1, 2];
export const MEASURED_SEEDS = { work: [3, 4, 5], report: [6, 7, 8, 9, 10] } as const;
/** A window that served (nearly) nothing counts as this share of the best path's: one late burst must not outweigh a day. */
export const LEAST_SHARE = 0.1;
/** A window with more foreign CPU than this, the harness's own busy process apart, is told as disturbed; none is left out. */
export const DISTURBED_SHARE = 0.05;
export const KV_MEMORY_BYTES = 1024 ** 3;
export const MAX_MODEL_LEN_TOKENS = 2048;

const closed = (clientCount: number, thinkMs = 0) => ({ kind: 'closed', clientCount, thinkMs }) as const;
const plain = {
  text: 'words',
  documents: null,
  temperature: 0.8,
  objectives: null,
  isBesideBusyProcess: false,
} as const;

/** A day that begins again: before the first comes the last. */
export const phases: readonly AdaptivePhase[] = [
  {
    ...{ ...plain, name: 'chat', durationMs: 3500, arrivals: { kind: 'open', perSecond: 7, gapCv: 1.5 } },
    ...{ promptTokens: [80, 160], answerTokens: { median: 60, sigma: 0.4, most: 120 } },
    objectives: { ttftMs: 1000, itlMs: 40 },
  },
  {
    ...{ ...plain, name: 'rag', durationMs: 3500, arrivals: closed(8) },
    // 70 % of a prompt are a document that others ask about, too.
    ...{ promptTokens: [250, 350], documents: { count: 3, tokens: 700 } },
    answerTokens: { median: 50, sigma: 0.3, most: 100 },
  },
  {
    ...{ ...plain, name: 'trickle', durationMs: 2500, arrivals: closed(2, 100) },
    ...{ promptTokens: [40, 120], answerTokens: { median: 60, sigma: 0.3, most: 100 } },
    objectives: { ttftMs: 300, itlMs: 15 },
  },
  {
    ...{ ...plain, name: 'flood', durationMs: 2500, arrivals: closed(64) },
    ...{ promptTokens: [100, 200], answerTokens: { median: 16, sigma: 0.3, most: 32 } },
  },
  {
    ...{ ...plain, name: 'agent', durationMs: 2500, arrivals: closed(2), text: 'agent', temperature: 0 },
    ...{ promptTokens: [300, 400], answerTokens: { median: 96, sigma: 0, most: 96 } },
  },
  {
    ...{ ...plain, name: 'reasoning', durationMs: 4000, arrivals: closed(16) },
    ...{ promptTokens: [120, 180], answerTokens: { median: 300, sigma: 0.8, most: 1200 } },
  },
  {
    ...{ ...plain, name: 'contention', durationMs: 2500, arrivals: closed(16) },
    ...{ promptTokens: [80, 160], answerTokens: { median: 60, sigma: 0.4, most: 120 } },
    isBesideBusyProcess: true,
  },
];

export const DEFAULT_ARM = 'balanced';

/** Static paths that are each somebody's sensible default, by name; those this machine cannot run are left out. */
export function staticPaths(envelope: Envelope): Readonly<Record<string, ExecutionPath>> {
  const { balanced, latency, throughput } = namedPaths(envelope);
  const kinds = fastestOfEachKind(envelope.linearVariants);
  const otherWeights = (['int8', 'bf16'] as const).flatMap((kind) => {
    const linear = kinds.find((id) => variantOf(id).kind === kind);
    return linear === undefined || linear === balanced.linear
      ? []
      : [[`${kind} weights`, { ...balanced, linear }] as const];
  });
  return {
    balanced,
    latency,
    throughput,
    ...Object.fromEntries(otherWeights),
    'float32 KV': { ...balanced, attention: 'attention.float32' },
    'throughput, int8 KV': { ...throughput, attention: 'attention.int8' },
    'one thread': { ...balanced, threadCount: 1 },
    'drafts of 8': { ...balanced, draftTokenCount: Math.min(8, envelope.maxDraftTokenCount) },
  };
}
