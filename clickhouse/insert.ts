/**
 * Rows into tables: the one place that knows which columns are times and how an epoch millisecond is written. Called by
 * the gateway's recorder (requests, steps) and by the optimizer's service (model_fits, regimes and their states). It does not retry.
 */
import type { TelemetryClient } from './client.ts';
import type { FitRow } from './fit-row.ts';
import type { RegimeRow, RegimeStateRow } from './regime-row.ts';
import type { RequestRow } from './request-row.ts';
import type { StepRow } from './step-row.ts';

export interface TableRows {
  readonly requests: RequestRow;
  readonly steps: StepRow;
  readonly model_fits: FitRow;
  readonly regimes: RegimeRow;
  readonly regime_states: RegimeStateRow;
}

export type TableName = keyof TableRows;

const timeColumns: { readonly [Table in TableName]: readonly (keyof TableRows[Table])[] } = {
  requests: ['arrivedAt'],
  steps: ['startedAt'],
  model_fits: ['fittedAt'],
  regimes: ['startedAt', 'detectedAt'],
  regime_states: ['savedAt'],
};

/** Epoch milliseconds as DateTime64(6) text, to the microsecond: 2026-01-02 03:04:05.678901. */
export function dateTime64(epochMs: number): string {
  const micros = Math.round(epochMs * 1000);
  const millis = Math.floor(micros / 1000);
  const iso = new Date(millis).toISOString();
  return `${iso.slice(0, 10)} ${iso.slice(11, 23)}${String(micros - millis * 1000).padStart(3, '0')}`;
}

/** Stands for what is no number: JSON's null would be stored as NaN and spoil every sum; this is refused by column. */
const NOT_A_NUMBER = 'not a number';

/** The row as it is stored: what a spool keeps, so that a row sent again is the same to the last digit. */
export function encodeRow<Table extends TableName>(table: Table, row: TableRows[Table]): object {
  const encoded: Record<string, unknown> = { ...row };
  for (const [column, value] of Object.entries(encoded)) {
    if (typeof value === 'number' && !Number.isFinite(value)) encoded[column] = NOT_A_NUMBER;
  }
  for (const column of timeColumns[table]) {
    const epochMs = row[column];
    encoded[String(column)] =
      typeof epochMs === 'number' && Math.abs(epochMs) < 8e15 ? dateTime64(epochMs) : NOT_A_NUMBER;
  }
  return encoded;
}

/**
 * Stores the rows once, however often it is called with this token and these rows.
 * @throws QueryError
 */
export async function insertRows<Table extends TableName>(
  client: TelemetryClient,
  table: Table,
  rows: readonly TableRows[Table][],
  dedupToken: string,
): Promise<void> {
  if (rows.length === 0) return;
  await client.insert(
    table,
    rows.map((row) => encodeRow(table, row)),
    dedupToken,
  );
}
