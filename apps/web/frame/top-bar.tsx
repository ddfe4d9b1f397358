'use client';
/**
 * The bar above every page: time range (where the page has charts), how old the newest answer is, the current regime,
 * the live path's id and the kill switch. States what the gateway said; never guesses.
 */
import { FlaskConical, Route, Waves } from 'lucide-react';
import Link from 'next/link';
import { usePathname } from 'next/navigation';
import { colourOfName } from '../colours.ts';
import { formatAge, formatClock, formatFullTime, formatId } from '../format.ts';
import { settingValue } from '../labels.ts';
import styles from './frame.module.css';
import { KillSwitch } from './kill-switch.tsx';
import { STALE_AFTER_MS, useSummary } from './queries.ts';
import { timeRanges, useTimeRange } from './time-range.ts';
import { useNow } from './use-now.ts';

export function TopBar() {
  const pathname = usePathname();
  const range = useTimeRange();
  const summary = useSummary(range).data;
  const path = summary?.livePath ?? null;
  return (
    <header className={styles.topBar}>
      {pathname === '/' && (
        <nav className={styles.ranges} aria-label="Time range">
          {timeRanges.map(({ name }) => (
            <Link
              key={name}
              href={{ pathname, query: { range: name } }}
              className={styles.range}
              aria-current={name === range.name ? 'true' : undefined}
              replace
              scroll={false}
            >
              {name.replace(/(\d+)/, '$1 ')}
            </Link>
          ))}
        </nav>
      )}
      <LiveDot />
      <span className={styles.spring} />
      {summary !== undefined && (
        <>
          {summary.simulatedDeviceNames.length > 0 && (
            <span
              className={styles.chip}
              data-testid="simulated-chip"
              title={`Workers run on devices that nobody has here: ${summary.simulatedDeviceNames.join(', ')}. Times are a model's, answers are no model's.`}
            >
              <FlaskConical size={13} aria-hidden="true" />
              <span className={styles.chipWord}>simulated</span>
            </span>
          )}
          {summary.emulatedDeviceNames.length > 0 && (
            <span
              className={styles.chip}
              data-testid="emulated-chip"
              title={`Workers emulate a GPU on the CPU, for tests: ${summary.emulatedDeviceNames.join(', ')}. Answers are the model's, times are no GPU's.`}
            >
              <FlaskConical size={13} aria-hidden="true" />
              <span className={styles.chipWord}>emulated</span>
            </span>
          )}
          <span
            className={styles.chip}
            data-testid="regime-chip"
            title="The kind of workload now, as the detector sees it"
          >
            <Waves size={13} aria-hidden="true" style={{ color: colourOfName(summary.regimeName) }} />
            <span className={styles.chipWord}>
              {summary.regimeName === '' ? 'no regime yet' : summary.regimeName}
            </span>
          </span>
          <span
            className={styles.chip}
            title={
              path === null
                ? 'No worker has joined'
                : `Live path ${summary.livePathId}: ${settingValue(path.linear)}, ${path.threadCount} threads, token budget ${path.tokenBudget}, running batch ${path.maxRunningCount}, ${path.draftTokenCount} drafted tokens`
            }
          >
            <Route size={13} aria-hidden="true" style={{ color: colourOfName(summary.livePathId) }} />
            <span className="visually-hidden">Live path </span>
            <code data-testid="live-path-id" data-path-id={summary.livePathId}>
              {formatId(summary.livePathId)}
            </code>
          </span>
        </>
      )}
      <KillSwitch />
    </header>
  );
}

function LiveDot() {
  const now = useNow();
  const { dataUpdatedAt, isError } = useSummary(useTimeRange());
  if (now === null || (dataUpdatedAt === 0 && !isError)) {
    return <span className={styles.live}>connecting</span>;
  }
  const isLive = dataUpdatedAt > 0 && now - dataUpdatedAt < STALE_AFTER_MS;
  return (
    <span
      className={styles.live}
      data-tone={isLive ? 'good' : 'bad'}
      title={dataUpdatedAt > 0 ? `Newest answer: ${formatFullTime(dataUpdatedAt)}` : undefined}
    >
      <span className={styles.dot} aria-hidden="true" />
      {isLive
        ? `live, ${formatAge(now - dataUpdatedAt)}`
        : dataUpdatedAt > 0
          ? `no answer since ${formatClock(dataUpdatedAt)}`
          : 'no answer'}
    </span>
  );
}
