/**
 * Whether workers should be kept for one regime each: chats beside long documents on four simulated H100s, seeds 6 and 7. All of
 * them on one path for everybody, the best of three budgets; or some kept for documents, on the best budget for each group, in
 * every split, with the router told the kind of a request (which flatters the split). Virtual time.
 */
import type { ExecutionPath } from '@variator/kernels/execution-path';
import { h100Path } from '@variator/optimizer/fixtures/h100-steps';
import { runFleet } from '@variator/optimizer/fleet-run.fixture';
import { chatsAndDocuments, kindOf } from '@variator/optimizer/fleet-traffic.fixture';
import { gatewayPolicy, type RoutePolicy } from '@variator/optimizer/twin-router';
import type { Figure } from '../figure.ts';

const SEEDS = [6, 7];
const SPAN_MS = 80_000;
const WORKERS = 4;
/** Sessions a second; at 15 four workers cannot keep up, however they are used. */
const LOADS = { light: 6, middling: 9, heavy: 12 } as const;
const BUDGETS = [512, 2048, 8192] as const;
/** The chats' group gets a budget of its own that is at most this; documents have the rest. */
const SPLITS = [
  { documents: 1, chatBudget: 512, documentBudget: 8192 },
  { documents: 2, chatBudget: 512, documentBudget: 8192 },
  { documents: 1, chatBudget: 2048, documentBudget: 2048 },
  { documents: 3, chatBudget: 2048, documentBudget: 2048 },
  { documents: 2, chatBudget: 2048, documentBudget: 2048 },
] as const;

/** The router among those kept for its kind; the last `documents` workers are kept for documents. */
const kept =
  (documents: number): RoutePolicy =>
  (places, request) => {
    const first = kindOf(request.spec) === 'document' ? places.length - documents : 0;
    const count = kindOf(request.spec) === 'document' ? documents : places.length - documents;
    return first + gatewayPolicy(places.slice(first, first + count), request);
  };

const withBudget = (tokenBudget: number): ExecutionPath => ({ ...h100Path, tokenBudget });

export async function benchSpecialise(): Promise<readonly Figure[]> {
  return Object.entries(LOADS).flatMap(([load, sessionsPerSecond]) => {
    const goodOf = (policy: RoutePolicy, paths: readonly ExecutionPath[]): number[] =>
      SEEDS.map(
        (seed) =>
          runFleet({
            traffic: { mix: chatsAndDocuments, sessionsPerSecond, spanMs: SPAN_MS, seed },
            ...{ policy, paths },
          }).goodShare,
      );
    const uniform = BUDGETS.map((budget) => ({
      name: `one path for all, budget ${budget}`,
      good: goodOf(
        gatewayPolicy,
        Array.from({ length: WORKERS }, () => withBudget(budget)),
      ),
    }));
    const split = SPLITS.map(({ documents, chatBudget, documentBudget }) => ({
      name: `${documents} of ${WORKERS} kept for documents, budgets ${chatBudget} and ${documentBudget}`,
      good: goodOf(
        kept(documents),
        Array.from({ length: WORKERS }, (_, index) =>
          withBudget(index < WORKERS - documents ? chatBudget : documentBudget),
        ),
      ),
    }));
    const figures = [...uniform, ...split].map(
      ({ name, good }): Figure => ({
        figure: `${load} load, ${name}: requests within their objectives`,
        goal: '',
        measured: percent(mean(good)),
        interval: good.map(percent).join(', '),
        isMet: null,
      }),
    );
    const bestOf = (group: readonly { readonly good: readonly number[] }[]): number =>
      Math.max(...group.map(({ good }) => mean(good)));
    const gain = bestOf(split) - bestOf(uniform);
    // Of another seed's traffic on one path for all: what a rule that goes by device time would choose.
    const { deviceShareOf } = runFleet({
      traffic: { mix: chatsAndDocuments, sessionsPerSecond, spanMs: SPAN_MS, seed: 1 },
      policy: gatewayPolicy,
    });
    const share = deviceShareOf.document ?? 0;
    return [
      ...figures,
      {
        figure: `${load} load: documents' share of the device time, and the workers that this would keep for them`,
        goal: '',
        measured: `${percent(share)}: ${Math.min(WORKERS - 1, Math.max(1, Math.round(WORKERS * share)))} of ${WORKERS}`,
        interval: 'seed 1',
        isMet: null,
      },
      {
        figure: `${load} load: the best split against the best path for all`,
        goal: '',
        measured: `${gain >= 0 ? '+' : ''}${(100 * gain).toFixed(1)} points`,
        interval: '',
        isMet: null,
      },
    ];
  });
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;
