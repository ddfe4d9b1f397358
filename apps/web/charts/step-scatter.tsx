'use client';
/**
 * Steps by what the fit foretold and what was measured, over one logarithmic scale on both axes: on the line they took what
 * was foretold, in the band they are as near to it as nine in ten should be. Rows in, picture out.
 */
import { useId } from 'react';
import type { FitPredictions } from '../api.ts';
import { colourOf } from '../colours.ts';
import { formatCount, formatFactor, formatMs } from '../format.ts';
import { fineLogTicks } from './axis.ts';
import styles from './chart.module.css';
import { Dots, ScatterChart, type ScatterTarget, usePlot } from './scatter-chart.tsx';

type DrawnStep = FitPredictions['drawn'][number];

const isPrefilling = (step: DrawnStep): boolean => step.prefillTokenCount > 0;
const kindOf = (step: DrawnStep): string => (isPrefilling(step) ? 'with prefill' : 'decode only');

const keys = [
  { label: 'decode only', colour: colourOf.decodeStep, mark: 'round' },
  { label: 'with prefill', colour: colourOf.prefillStep, mark: 'square' },
] as const;

/** What other programs slowed says less of the fit. */
const opacityOf = { quiet: 0.75, disturbed: 0.4 } as const;

export function StepScatter(props: {
  readonly drawn: readonly DrawnStep[];
  readonly logBand90: number | null;
  readonly summary: string;
}) {
  const { drawn, logBand90 } = props;
  const times = drawn.flatMap(({ predictedMs, deviceMs }) => [predictedMs, deviceMs]);
  const domain = [Math.min(...times) / 1.15, Math.max(...times) * 1.15] as const;
  const axis = (label: string) => ({ label, scale: 'log', domain, ticks: fineLogTicks(...domain) }) as const;
  const targets = drawn.map(
    (step): ScatterTarget => ({
      x: step.predictedMs,
      y: step.deviceMs,
      words: [
        {
          name: kindOf(step),
          value: step.tokenCount === 1 ? '1 token' : `${formatCount(step.tokenCount)} tokens`,
        },
        { name: 'predicted', value: formatMs(step.predictedMs) },
        { name: 'measured', value: formatMs(step.deviceMs) },
        { name: '', value: formatFactor(step.deviceMs / step.predictedMs) },
      ],
    }),
  );
  const dots = (isQuiet: boolean) =>
    keys.map(({ label, colour, mark }) => (
      <Dots
        key={label}
        points={drawn
          .filter((step) => kindOf(step) === label && step.isQuiet === isQuiet)
          .map((step) => ({ x: step.predictedMs, y: step.deviceMs }))}
        colour={colour}
        mark={mark}
        opacity={isQuiet ? opacityOf.quiet : opacityOf.disturbed}
      />
    ));
  return (
    <ScatterChart
      title="Step time, measured against predicted"
      unit="ms"
      summary={props.summary}
      headingLevel="h2"
      x={axis('predicted ms')}
      y={axis('measured ms')}
      targets={targets}
      keys={keys}
      table={<StepTable drawn={drawn} />}
    >
      <Band domain={domain} logBand90={logBand90} />
      {dots(false)}
      {dots(true)}
    </ScatterChart>
  );
}

/** The line of what was foretold, and the band around it; parallel lines, since both axes are logarithmic. */
function Band(props: { readonly domain: readonly [number, number]; readonly logBand90: number | null }) {
  const clipId = useId();
  const plot = usePlot();
  if (plot === null) return null;
  const { area, xOf, yOf } = plot;
  const [least, most] = props.domain;
  const factor = Math.exp(props.logBand90 ?? 0);
  const corner = (x: number, y: number): string => `${xOf(x)} ${yOf(y)}`;
  const ends = [corner(least, least * factor), corner(most, most * factor)];
  const back = [corner(most, most / factor), corner(least, least / factor)];
  return (
    <g>
      <clipPath id={clipId}>
        <rect x={area.x} y={area.y} width={area.width} height={area.height} />
      </clipPath>
      <g clipPath={`url(#${clipId})`}>
        {props.logBand90 !== null && (
          <path d={`M${ends.join('L')}L${back.join('L')}Z`} fill="var(--muted)" fillOpacity={0.16} />
        )}
        <path
          d={`M${corner(least, least)}L${corner(most, most)}`}
          stroke="var(--text)"
          strokeOpacity={0.6}
          strokeDasharray="5 4"
          fill="none"
        />
      </g>
      {props.logBand90 !== null && (
        <text
          x={area.x + 8}
          y={area.y + 6}
          dy="0.71em"
          fill="var(--muted)"
          fontSize={11}
          className={styles.objective}
        >
          band of 90 %: within {formatFactor(factor)}
        </text>
      )}
    </g>
  );
}

function StepTable({ drawn }: { readonly drawn: readonly DrawnStep[] }) {
  return (
    <table className={styles.table}>
      <thead>
        <tr>
          <th scope="col">step</th>
          <th scope="col">tokens</th>
          <th scope="col">predicted</th>
          <th scope="col">measured</th>
          <th scope="col">measured / predicted</th>
        </tr>
      </thead>
      <tbody>
        {[...drawn]
          .sort((a, b) => a.predictedMs - b.predictedMs)
          .map((step, index) => (
            // biome-ignore lint/suspicious/noArrayIndexKey: rows of a sample have no name of their own
            <tr key={index}>
              <th scope="row">
                {kindOf(step)}
                {step.isQuiet ? '' : ', disturbed'}
              </th>
              <td>{formatCount(step.tokenCount)}</td>
              <td>{formatMs(step.predictedMs)}</td>
              <td>{formatMs(step.deviceMs)}</td>
              <td>{formatFactor(step.deviceMs / step.predictedMs)}</td>
            </tr>
          ))}
      </tbody>
    </table>
  );
}
