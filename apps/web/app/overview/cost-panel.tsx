'use client';
/**
 * Whose the device's time was, and what it cost: served, headroom and overhead as one bar, and the three prices by tier,
 * model, tenant, session or program. The grouping is in the URL. Called by the overview; computes no price.
 */
import type { CostGrouping, CostLedger } from '../../api.ts';
import {
  DASH,
  formatAge,
  formatCount,
  formatEnergy,
  formatMs,
  formatShare,
  formatUsd,
} from '../../format.ts';
import { useCostLedger } from '../../frame/queries.ts';
import type { TimeRange } from '../../frame/time-range.ts';
import { useSelection } from '../../frame/use-selection.ts';
import styles from './cost-panel.module.css';

const groupings: readonly CostGrouping[] = ['tier', 'model', 'tenant', 'session', 'program'];
const shownGroupCount = 12;

export function CostPanel({ range }: { readonly range: TimeRange }) {
  const [selected, select] = useSelection('costBy');
  const by = groupings.find((grouping) => grouping === selected) ?? 'tier';
  const { data, error } = useCostLedger(range, by);
  if (data === undefined) return error === null ? null : <p className={styles.fault}>{error.message}</p>;
  return (
    <section className={styles.panel} aria-label="Cost of the device's time" data-stale={error !== null}>
      <div className={styles.heading}>
        <h2>Device time and its price</h2>
        <fieldset className={styles.groupings}>
          <legend className="visually-hidden">Prices by</legend>
          {groupings.map((grouping) => (
            <button
              key={grouping}
              type="button"
              aria-pressed={grouping === by}
              onClick={() => select(grouping === 'tier' ? '' : grouping)}
            >
              {grouping}
            </button>
          ))}
        </fieldset>
      </div>
      {error !== null && <p className={styles.fault}>The last that is known: {error.message}</p>}
      <CapacityBar ledger={data} />
      <Prices ledger={data} />
    </section>
  );
}

function CapacityBar({ ledger }: { readonly ledger: CostLedger }) {
  const parts = [
    { key: 'served', ms: ledger.servedDeviceMs, about: 'charged to requests' },
    { key: 'calibration', ms: ledger.otherDeviceMs, about: 'calibration and checks' },
    { key: 'headroom', ms: ledger.headroomMs, about: 'idle for the objectives' },
    { key: 'overhead', ms: ledger.overheadMs, about: 'idle beyond that' },
  ] as const;
  const shareOf = (ms: number): number | null => (ledger.availableMs === 0 ? null : ms / ledger.availableMs);
  return (
    <>
      <div className={styles.bar} aria-hidden="true">
        {parts.map(({ key, ms }) => (
          <span key={key} className={styles.swatch} data-part={key} style={{ flexGrow: Math.max(ms, 0) }} />
        ))}
      </div>
      <dl className={styles.parts}>
        {parts.map(({ key, ms, about }) => (
          <div key={key}>
            <dt>
              <i className={styles.swatch} data-part={key} aria-hidden="true" /> {key}
            </dt>
            <dd>
              {formatShare(shareOf(ms))} <small>{about}</small>
            </dd>
          </div>
        ))}
        <div>
          <dt>available</dt>
          <dd>
            {formatAge(ledger.availableMs)} <small>at {formatUsd(ledger.deviceUsdPerHour)} an hour</small>
          </dd>
        </div>
      </dl>
    </>
  );
}

function Prices({ ledger }: { readonly ledger: CostLedger }) {
  if (ledger.groups.length === 0) return <p className={styles.none}>No request has ended in this range.</p>;
  const shown = ledger.groups.slice(0, shownGroupCount);
  const isKvPriced = ledger.kvDeviceMsPerBlockSecond > 0;
  const isEnergyTold = ledger.groups.some(({ energyJoules }) => energyJoules !== null);
  const hiddenCount = ledger.groups.length - shown.length;
  return (
    <div className={styles.scroll}>
      <table className={styles.table}>
        <caption className="visually-hidden">Prices by {ledger.by}, dollars per million tokens</caption>
        <thead>
          <tr>
            <th scope="col">{ledger.by}</th>
            <th scope="col">requests</th>
            <th scope="col">device time</th>
            <th scope="col">a good request</th>
            <th scope="col">marginal $/M tok</th>
            <th scope="col">attributed $/M tok</th>
            <th scope="col">fully loaded $/M tok</th>
            <th scope="col">in all</th>
            {isEnergyTold && (
              <th
                scope="col"
                title="Its share by device time of what the devices took, idle included; of workers whose devices say"
              >
                energy
              </th>
            )}
            {isKvPriced && (
              <th
                scope="col"
                title="KV blocks kept until its sessions came back, in the last 48 hours at most"
              >
                KV kept
              </th>
            )}
          </tr>
        </thead>
        <tbody>
          {shown.map((group) => (
            <tr key={group.key} data-testid="cost-row">
              <th scope="row" title={group.key}>
                {group.key === '' ? 'none named' : group.key}
              </th>
              <td>{formatCount(group.requestCount)}</td>
              <td>{formatMs(group.deviceMs)}</td>
              <td>{group.deviceMsPerGoodRequest === null ? DASH : formatMs(group.deviceMsPerGoodRequest)}</td>
              <td>{formatUsd(group.marginalUsdPerMillionTokens)}</td>
              <td>{formatUsd(group.attributedUsdPerMillionTokens)}</td>
              <td>{formatUsd(group.fullyLoadedUsdPerMillionTokens)}</td>
              <td>{formatUsd(group.fullyLoadedUsd)}</td>
              {isEnergyTold && <td>{formatEnergy(group.energyJoules)}</td>}
              {isKvPriced && <td>{formatMs(group.kvResidencyMs)}</td>}
            </tr>
          ))}
        </tbody>
      </table>
      {hiddenCount > 0 && (
        <p className={styles.none}>
          {hiddenCount} less dear {hiddenCount === 1 ? 'one' : 'ones'} not shown.
        </p>
      )}
    </div>
  );
}
