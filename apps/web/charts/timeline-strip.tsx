/**
 * Two rows over all charts of a page: the regimes with their names (unconfirmed ones hatched) and the execution paths
 * that were live, with their ids. Lies exactly over the plots' time axis. Rows in, picture out.
 */
import type { PathSpan, RegimeMark } from '../api.ts';
import { colourOfName, colourOfRegime } from '../colours.ts';
import { formatAge, formatId, formatMoment } from '../format.ts';
import styles from './timeline-strip.module.css';

interface Block {
  readonly key: string;
  readonly name: string;
  readonly colour: string;
  readonly fromMs: number;
  readonly toMs: number;
  readonly isConfirmed: boolean;
  readonly title: string;
}

export function TimelineStrip(props: {
  readonly fromMs: number;
  readonly toMs: number;
  readonly regimes: readonly RegimeMark[];
  readonly paths: readonly PathSpan[];
}) {
  const { fromMs, toMs } = props;
  const moment = (at: number): string => formatMoment(at, toMs - fromMs);
  const regimes = props.regimes.map((regime): Block => {
    const endedAt = regime.endedAt ?? toMs;
    // One that has ended was refuted: what is confirmed has no suspicion before it any more.
    const state = regime.isConfirmed ? '' : regime.endedAt === null ? ', not confirmed yet' : ', refuted';
    const name = regime.isConfirmed ? regime.name : `perhaps ${regime.name}`;
    return {
      key: `${regime.regimeId} ${regime.startedAt}`,
      name,
      colour: colourOfRegime(regime),
      fromMs: regime.startedAt,
      toMs: endedAt,
      isConfirmed: regime.isConfirmed,
      title: `${name}${state}: since ${moment(regime.startedAt)}, for ${formatAge(endedAt - regime.startedAt)}`,
    };
  });
  const paths = props.paths.map(
    (span): Block => ({
      key: `${span.pathId} ${span.fromMs}`,
      name: formatId(span.pathId),
      colour: colourOfName(span.pathId),
      fromMs: span.fromMs,
      toMs: span.toMs,
      isConfirmed: true,
      title: `Path ${span.pathId}: ${moment(span.fromMs)} to ${moment(span.toMs)}`,
    }),
  );
  return (
    <div className={styles.strip}>
      <StripRow
        name="regime"
        blocks={regimes}
        fromMs={fromMs}
        toMs={toMs}
        none="no change of workload marked"
      />
      <StripRow name="path" blocks={paths} fromMs={fromMs} toMs={toMs} none="no steps in this range" />
    </div>
  );
}

function StripRow(props: {
  readonly name: 'regime' | 'path';
  readonly blocks: readonly Block[];
  readonly fromMs: number;
  readonly toMs: number;
  readonly none: string;
}) {
  const { fromMs, toMs } = props;
  const shareOf = (at: number): number => (Math.min(toMs, Math.max(fromMs, at)) - fromMs) / (toMs - fromMs);
  const visible = props.blocks.filter((block) => block.toMs > fromMs && block.fromMs < toMs);
  return (
    <div className={styles.row} data-row={props.name}>
      <span className={styles.rowName}>{props.name}</span>
      <ul className={styles.track} aria-label={props.name === 'regime' ? 'Regimes' : 'Live paths'}>
        {visible.length === 0 && <li className={styles.none}>{props.none}</li>}
        {visible.map((block) => (
          <li
            key={block.key}
            className={styles.block}
            data-testid={props.name === 'regime' ? 'regime-band' : undefined}
            data-confirmed={block.isConfirmed}
            title={block.title}
            style={{
              left: `${shareOf(block.fromMs) * 100}%`,
              width: `${Math.max(0.3, (shareOf(block.toMs) - shareOf(block.fromMs)) * 100)}%`,
              ['--block' as string]: block.colour,
            }}
          >
            <span>{block.name}</span>
          </li>
        ))}
      </ul>
    </div>
  );
}
