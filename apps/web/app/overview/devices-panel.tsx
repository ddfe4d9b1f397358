'use client';
/**
 * What the drivers of the workers' GPUs say: clock, power, energy, memory, temperature. Called by the overview; absent where no
 * worker has such a device, as on CPUs. What a driver does not say is a dash.
 */
import { DASH, formatCount } from '../../format.ts';
import { useWorkers } from '../../frame/queries.ts';
import styles from './cost-panel.module.css';

const GIBIBYTE = 1024 ** 3;
const known = (value: number | null, unit: string): string =>
  value === null ? DASH : `${formatCount(Math.round(value))} ${unit}`;
const gibibytes = (bytes: number | null): string =>
  bytes === null ? DASH : `${(bytes / GIBIBYTE).toFixed(1)} GiB`;

export function DevicesPanel() {
  const { data, error } = useWorkers();
  const gpus = (data ?? []).flatMap(({ deviceTelemetry, ...worker }) =>
    deviceTelemetry === null ? [] : [{ ...worker, told: deviceTelemetry }],
  );
  if (gpus.length === 0) return null;
  return (
    <section className={styles.panel} aria-label="What the GPUs say" data-stale={error !== null}>
      <div className={styles.heading}>
        <h2>GPUs</h2>
      </div>
      {error !== null && <p className={styles.fault}>The last that is known: {error.message}</p>}
      <div className={styles.scroll}>
        <table className={styles.table}>
          <caption className="visually-hidden">What each worker's GPU says of itself</caption>
          <thead>
            <tr>
              <th scope="col">worker</th>
              <th scope="col">device</th>
              <th scope="col">SM clock</th>
              <th scope="col">power</th>
              <th scope="col" title="Since its driver was loaded">
                energy
              </th>
              <th scope="col">memory</th>
              <th scope="col">temperature</th>
            </tr>
          </thead>
          <tbody>
            {gpus.map(({ workerId, envelope, told }) => (
              <tr key={workerId} data-testid="gpu-row">
                <th scope="row">{workerId}</th>
                <td>{envelope.deviceName}</td>
                <td>{known(told.smClockMhz, 'MHz')}</td>
                <td>{known(told.powerWatts, 'W')}</td>
                <td>{known(told.energyJoules === null ? null : told.energyJoules / 1000, 'kJ')}</td>
                <td>
                  {gibibytes(told.memoryUsedBytes)} of {gibibytes(told.memoryBytes)}
                </td>
                <td>{known(told.temperatureCelsius, '°C')}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
