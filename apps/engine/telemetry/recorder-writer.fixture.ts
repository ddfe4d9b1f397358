/**
 * A process that records steps until it is killed, for recorder.test.ts: `FOLDER FIRST_STEP_ID CLICKHOUSE_URL`.
 * Each line it prints is a step id below which every row was recorded more than two commits ago.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { createTelemetryClient } from '@variator/clickhouse/client';
import { stepRow } from '@variator/clickhouse/rows.fixture';
import { createRecorder } from './recorder.ts';

const [folder = '', first = '0', url = ''] = process.argv.slice(2);
const client = createTelemetryClient(url);
const recorder = createRecorder({
  client,
  folder,
  bootId: `writer-${process.pid}`,
  flushMs: 100,
  log: console.error,
});
const startedAt = Date.now() - 3_600_000;
let stepId = Number(first);
for (;;) {
  for (let burst = 0; burst < 10; burst += 1) {
    for (let row = 0; row < 50; row += 1) {
      recorder.record('steps', stepRow({ bootId: 'killed', stepId, startedAt: startedAt + (stepId % 1000) }));
      stepId += 1;
    }
    await sleep(5);
  }
  const durable = stepId;
  // A slow disk may need longer than the commit's pause.
  setTimeout(() => process.stdout.write(`${durable}\n`), 400);
}
