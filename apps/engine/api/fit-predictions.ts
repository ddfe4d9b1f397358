/**
 * What the fits foretold beside what was measured, for one pair of kernels and model: asks the typed queries and says in words
 * which kernels they are. Called by fits.predictions. Of the newest 48 h of the span: longer ago, steps are kept by the
 * hour only. The band is that of the fit in use, the predictions are those of their moment.
 */
import type { TelemetryClient } from '@variator/clickhouse/client';
import { type KernelsInSpan, kernelsInSpan } from '@variator/clickhouse/queries/kernels-in-span';
import type { Span } from '@variator/clickhouse/queries/measures';
import { HOUR_MS } from '@variator/clickhouse/queries/source-of';
import { stepPredictions } from '@variator/clickhouse/queries/step-predictions';
import { type ExecutionPath, kernelsId } from '@variator/kernels/execution-path';
import { QUIET_SHARE } from '@variator/optimizer/step-sample';
import type { Fleet } from '../fleet/fleet.ts';
import type { FitPredictions, KernelsKey } from './contract.ts';

const RECENT_MS = 48 * HOUR_MS;

export async function fitPredictions(
  client: TelemetryClient,
  fleet: Fleet,
  question: Span & { readonly kernels: KernelsKey | null },
): Promise<FitPredictions> {
  const { toMs } = question;
  const span = { fromMs: Math.max(question.fromMs, toMs - RECENT_MS), toMs };
  const names = namesOf(fleet);
  const kernels = (await kernelsInSpan(client, span)).map((one) => ({
    ...one,
    path: names.get(keyOf(one)) ?? null,
    isLive: fleet
      .workers()
      .some(({ envelope, path }) => keyOf({ ...envelope, kernelsId: kernelsId(path) }) === keyOf(one)),
  }));
  const asked = question.kernels;
  const shown =
    kernels.find((one) => asked !== null && keyOf(one) === keyOf(asked)) ??
    kernels.find(({ isLive }) => isLive) ??
    kernels[0];
  if (shown === undefined) return { ...span, kernels, shown: null, fit: null, errors: [], drawn: [] };
  const { deviceKind, modelHash, kernelsId: id } = shown;
  const fit = fleet.fitFor(deviceKind, modelHash, id);
  const logBand90 = fit?.logBand90 ?? null;
  const predictions = await stepPredictions(client, {
    ...span,
    deviceKind,
    modelHash,
    kernelsId: id,
    logBand90,
    quietShare: QUIET_SHARE,
  });
  return {
    ...span,
    kernels,
    shown: { deviceKind, modelHash, kernelsId: id },
    fit:
      fit === null
        ? null
        : {
            fitId: fit.fitId,
            fittedAt: fit.fittedAt,
            sampleCount: fit.sampleCount,
            heldOutMape: fit.heldOutMape,
            logBand90,
          },
    ...predictions,
  };
}

type Named = Pick<ExecutionPath, 'linear' | 'attention' | 'threadCount'>;

/** Every kernel that a present worker could run, by what its steps are kept under. */
function namesOf(fleet: Fleet): Map<string, Named> {
  return new Map(
    fleet.workers().flatMap(({ envelope, path }) =>
      envelope.linearVariants.flatMap((linear) =>
        envelope.attentionVariants.flatMap((attention) =>
          Array.from({ length: envelope.threadCount }, (_, index): [string, Named] => {
            const named = { linear, attention, threadCount: index + 1 };
            return [keyOf({ ...envelope, kernelsId: kernelsId({ ...path, ...named }) }), named];
          }),
        ),
      ),
    ),
  );
}

const keyOf = ({ deviceKind, modelHash, kernelsId: id }: KernelsKey | KernelsInSpan): string =>
  `${deviceKind} ${modelHash} ${id}`;
