'use client';
/**
 * How far off the step-time fit is: steps by predicted and measured time with the fit's band, and the errors over all of
 * them. Which kernels is in the URL. Called by the overview; computes no error.
 */
import type { FitPredictions, KernelsKey } from '../../api.ts';
import { StepScatter } from '../../charts/step-scatter.tsx';
import { formatAge, formatCount, formatError, formatId, formatShare } from '../../format.ts';
import { useFitPredictions } from '../../frame/queries.ts';
import type { TimeRange } from '../../frame/time-range.ts';
import { useSelection } from '../../frame/use-selection.ts';
import { settingValue } from '../../labels.ts';
import styles from './predictions-panel.module.css';

export function PredictionsPanel({ range }: { readonly range: TimeRange }) {
  const [selected, select] = useSelection('kernels');
  const { data, error } = useFitPredictions(range, parseKey(selected));
  if (data === undefined) {
    return error === null ? null : <p className={styles.fault}>{error.message}</p>;
  }
  if (data.kernels.length === 0) return null;
  return (
    <section
      className={styles.panel}
      aria-label="What steps were foretold to take"
      data-stale={error !== null}
    >
      {error !== null && <p className={styles.fault}>The last that is known: {error.message}</p>}
      {data.drawn.length === 0 ? (
        <>
          <h2>Step time, measured against predicted</h2>
          <WhichKernels data={data} onSelect={select} />
          <NothingForetold data={data} />
        </>
      ) : (
        <div className={styles.columns}>
          <StepScatter
            drawn={data.drawn}
            logBand90={data.fit?.logBand90 ?? null}
            summary={sentenceOf(data)}
          />
          <div className={styles.words}>
            <WhichKernels data={data} onSelect={select} />
            <p>{sentenceOf(data)}</p>
            <Errors errors={data.errors} />
            <p className={styles.note}>{noteOf(data)}</p>
          </div>
        </div>
      )}
    </section>
  );
}

/** A choice where several ran, as in a canary. */
function WhichKernels(props: { readonly data: FitPredictions; readonly onSelect: (key: string) => void }) {
  const { kernels, shown } = props.data;
  const [only] = kernels;
  if (kernels.length === 1 && only !== undefined) return <p className={styles.note}>{nameOf(only)}</p>;
  return (
    <label className={styles.kernels}>
      <span className="visually-hidden">Kernels</span>
      <select
        value={shown === null ? '' : keyOf(shown)}
        onChange={({ target }) => props.onSelect(target.value)}
      >
        {kernels.map((one) => (
          <option key={keyOf(one)} value={keyOf(one)}>
            {nameOf(one)}
          </option>
        ))}
      </select>
    </label>
  );
}

/** Served, but not one step had a fit that could foretell it. */
function NothingForetold({ data }: { readonly data: FitPredictions }) {
  const shown = data.kernels.find((one) => data.shown !== null && keyOf(one) === keyOf(data.shown));
  return (
    <p className={styles.note}>
      {shown === undefined ? '' : `${nameOf(shown)} in this range, none with a prediction. `}The optimizer
      fits kernels after ten of their steps; from then on each step is shown here beside what was foretold of
      it.
    </p>
  );
}

function Errors({ errors }: { readonly errors: FitPredictions['errors'] }) {
  return (
    <div className={styles.scroll}>
      <table className={styles.table}>
        <caption className="visually-hidden">How far off the predictions were</caption>
        <thead>
          <tr>
            <th scope="col">steps</th>
            <th scope="col">count</th>
            <th scope="col">in the band</th>
            <th scope="col">MAPE</th>
            <th scope="col">of those in it</th>
            <th scope="col">outside</th>
          </tr>
        </thead>
        <tbody>
          {errors.map((one) => (
            <tr key={one.steps} data-testid="prediction-row">
              <th scope="row">{one.steps}</th>
              <td>{formatCount(one.stepCount)}</td>
              <td>{formatShare(one.insideShare)}</td>
              <td>{formatError(one.mape)}</td>
              <td>{formatError(one.insideMape)}</td>
              <td>{formatError(one.outsideMape)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** Of undisturbed steps, where there are some: others measure the neighbours' work too. */
function sentenceOf({ errors, fit }: FitPredictions): string {
  const figures =
    errors.find(({ steps }) => steps === 'undisturbed') ?? errors.find(({ steps }) => steps === 'all');
  if (figures === undefined) return '';
  const which = figures.steps === 'all' ? 'steps' : 'undisturbed steps';
  const off = `${formatCount(figures.stepCount)} ${which} were ${formatError(figures.mape)} off what was foretold`;
  if (figures.insideShare === null || fit?.logBand90 == null) return `${off}; the fit has no band yet.`;
  return `${off}, and ${formatShare(figures.insideShare)} of them lie in the band that should hold 90 %.`;
}

function noteOf({ drawn, errors, fit, fromMs, toMs }: FitPredictions): string {
  const count = errors.find(({ steps }) => steps === 'all')?.stepCount ?? 0;
  const sample = count > drawn.length ? `${formatCount(drawn.length)} of them drawn. ` : '';
  const span = `Of the last ${formatAge(toMs - fromMs)}. `;
  const of = fit === null ? '' : `Fit ${formatId(fit.fitId)} of ${formatCount(fit.sampleCount)} steps`;
  const held =
    fit === null || fit.heldOutMape === null ? '' : `, ${formatError(fit.heldOutMape)} off on those held out`;
  return `${span}${sample}Each is beside the prediction of its moment${of === '' ? '' : `; the band is that of the present one. ${of}${held}`}.`;
}

type Kernels = FitPredictions['kernels'][number];

function nameOf({ path, kernelsId, deviceKind, isLive, stepCount }: Kernels): string {
  const name =
    path === null
      ? `kernels ${formatId(kernelsId)} on ${deviceKind}`
      : `${settingValue(path.linear)}, ${path.threadCount === 1 ? '1 thread' : `${formatCount(path.threadCount)} threads`}`;
  return `${name}${isLive ? ' (live)' : ''}, ${formatCount(stepCount)} steps`;
}

const keyOf = ({ deviceKind, modelHash, kernelsId }: KernelsKey): string =>
  [deviceKind, modelHash, kernelsId].join('/');

function parseKey(text: string): KernelsKey | null {
  const [deviceKind = '', modelHash = '', kernelsId = ''] = text.split('/');
  return kernelsId === '' ? null : { deviceKind, modelHash, kernelsId };
}
