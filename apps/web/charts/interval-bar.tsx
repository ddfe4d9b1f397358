/**
 * A relative change with its interval around a zero line: the predicted one as a bar with its value, the realised one
 * as a line with a diamond under it. Rows in, picture out; the words stand in the cells beside it.
 */
import type { Tone } from '../labels.ts';
import styles from './interval-bar.module.css';

interface Change {
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

const toneColours: Readonly<Record<Tone, string>> = {
  good: 'var(--good)',
  bad: 'var(--bad)',
  muted: 'var(--muted)',
};

export function IntervalBar(props: {
  /** The change at either end of the bar's scale. */
  readonly most: number;
  readonly predicted: Change;
  readonly realised: Change | null;
  readonly tone: Tone;
}) {
  const { most, predicted, realised } = props;
  const xOf = (change: number): number => 50 + 50 * Math.max(-1, Math.min(1, change / most));
  const spanOf = ({ low, high }: Change) => ({ left: `${xOf(low)}%`, width: `${xOf(high) - xOf(low)}%` });
  return (
    <div
      className={styles.bar}
      data-pair={realised !== null}
      style={{ ['--tone' as string]: toneColours[props.tone] }}
      aria-hidden="true"
    >
      <span className={styles.zero} />
      <span className={styles.interval} style={spanOf(predicted)} />
      <span className={styles.value} style={{ left: `${xOf(predicted.value)}%` }} />
      {realised !== null && (
        <>
          <span className={styles.realised} style={spanOf(realised)} />
          <span className={styles.diamond} style={{ left: `${xOf(realised.value)}%` }} />
        </>
      )}
    </div>
  );
}
