/**
 * The whole loop in a real browser on the story model: traffic of two kinds fills the charts, a regime is marked, a
 * proposal is approved by one click, the worker's path changes under open streams, the ledger says what came of it, and
 * one more click takes it back.
 */
import { diffPaths } from '@variator/kernels/execution-path';
import { type Browser, chromium, type Locator, type Page } from 'playwright-core';
import { afterAll, beforeAll, expect, onTestFailed, test } from 'vitest';
import { drivePhase, type Endpoint } from '../apps/engine/cli/drive.ts';
import { chats, type DemoOptions, flood, generator } from '../apps/engine/cli/workload.ts';
import type { Proposal } from '../apps/engine/control/control-types.ts';
import { browserArgs, findBrowser } from './browser.ts';
import { acrossSwitches, canaryStepCounts, newestPathId, switchTimes, telemetryOf } from './path-steps.ts';
import { type RunningProduct, root, startProduct } from './running-product.ts';
import { takePictures } from './screenshots.ts';
import { keepStreaming } from './streaming-clients.ts';
import { waitUntil } from './wait-until.ts';

const browserPath = findBrowser();
if (browserPath === null) console.warn('SKIPPED: the end-to-end test found no Chromium or Chrome');

let product: RunningProduct;
let browser: Browser;
let page: Page;
const stop = new AbortController();
const faults: string[] = [];

beforeAll(async () => {
  if (browserPath === null) return;
  product = await startProduct({
    flags: ['--model', `${root}models/stories-5m`, '--threads', '1'],
  });
  browser = await chromium.launch({ executablePath: browserPath, args: browserArgs });
  page = await browser.newPage({ viewport: { width: 1440, height: 900 } });
  page.on('pageerror', (error) => faults.push(error.message));
});

afterAll(async () => {
  stop.abort();
  await browser?.close();
  await product?.stop();
  product?.removeData();
});

test.skipIf(browserPath === null)(
  'a person sees the workload change, starts a canary by one click, reads what it came to, and takes it back',
  async () => {
    onTestFailed(async () => {
      console.log(product.output().slice(-6000));
      await page.screenshot({ path: `${root}test-results/failed.png`, fullPage: true });
    });
    const { admin, webUrl } = product;
    onTestFailed(async () => {
      const now = Date.now();
      const marks = await admin.regimes.list.query({ fromMs: now - 600_000, toMs: now });
      for (const { name, regimeId, isConfirmed } of marks) console.log('regime', regimeId, isConfirmed, name);
      for (const proposal of await admin.proposals.list.query({ limit: 20 })) {
        console.log('proposal', proposal.state, proposal.evidence.regimeId, proposal.title);
      }
    });
    const telemetry = telemetryOf(product.dataDir);
    await admin.objectives.set.mutate({
      objectives: { ttftMs: 10_000, itlMs: 500 },
      canary: {
        blockDurationMs: 1000,
        leastPairCount: 3,
        leastPairCountToPromote: 3,
        mostPairCount: 30,
        leastStepsPerBlock: 4,
        itlGuardRatio: 10,
      },
    });
    await startDear(admin);
    const firstPathId = (await admin.overview.summary.query({ windowMs: 60_000 })).livePathId;

    // Chats, until the charts have filled and the first regime is marked.
    await page.goto(`${webUrl}/?range=5m`);
    expect(await testId('live-path-id').getAttribute('data-path-id')).toBe(firstPathId);
    const chatting = drive('chats');
    for (const figure of ['overview-tokens-per-second', 'overview-ttft-p95', 'overview-itl-p95']) {
      await waitUntil(`a number in ${figure}`, 30_000, async () =>
        /^[\d.,]+ (tok\/s|ms|s)$/.test((await testId(figure).textContent()) ?? ''),
      );
    }
    await waitUntil('the first regime mark', 60_000, () => hasRegimeBand(/./));
    expect(await waitUntil('chart lines', 10_000, drawnLineCount)).toBeGreaterThanOrEqual(6);
    await waitUntil('steps beside what was foretold of them', 30_000, async () =>
      /\d %/.test((await testId('prediction-row').first().textContent()) ?? ''),
    );
    await chatting.end();

    // The flood is another kind of workload: its mark appears beside the first, by itself.
    const flooding = drive('flood');
    await waitUntil('a mark for the changed workload', 60_000, () => hasRegimeBand(/short answers/));
    await takePictures(browser, webUrl, {
      name: 'overview',
      path: '/?range=5m',
      shows: '[data-testid=regime-band]',
    });
    await flooding.end();

    // Streams that stay open through everything that follows: a third workload, to which proposals have to belong.
    const flood = await currentRegime(admin);
    const clients = keepStreaming(product, { clientCount: 12, maxTokens: 40 });
    await page.goto(`${webUrl}/proposals`);
    await waitUntil('another regime than the flood', 90_000, async () => {
      return (await currentRegime(admin)) !== flood;
    });
    const card = await proposalWorthTheMost(admin);
    expect(await card.getByTestId('proposal-title').textContent()).toMatch(/device ms per request/);
    expect(await card.getByTestId('proposal-reason').textContent()).toMatch(
      /were replayed through the scheduler/,
    );
    await card.getByRole('slider', { name: /Cost against ITL p99/ }).waitFor({ timeout: 5000 });
    await takePictures(browser, webUrl, {
      name: 'proposals-open',
      path: '/proposals',
      shows: '[data-testid=proposal-reason]',
    });

    await card.getByTestId('start-canary').click();
    const rollout = page.locator('[data-testid=rollout-card]');
    await rollout.waitFor({ timeout: 10_000 });
    const rolloutId = (await rollout.getAttribute('data-rollout-id')) ?? '';
    await waitUntil('the verdict', 120_000, async () =>
      /live|rolledBack|kept|failed/.test((await testId('rollout-state').getAttribute('data-state')) ?? ''),
    );
    const ended = await admin.rollouts.progress.query({ rolloutId });
    expect(ended, ended.message).toMatchObject({ state: 'live', verdict: 'better', approvedBy: 'dashboard' });
    const steps = await canaryStepCounts(telemetry, rolloutId);
    expect([...steps.keys()].sort()).toEqual([ended.fromPathId, ended.toPathId].sort());
    await waitUntil('step rows on the new path', 15_000, async () => {
      return (await newestPathId(telemetry, ended.endedAt ?? Date.now())) === ended.toPathId;
    });
    await waitUntil('the new path in the top bar', 10_000, async () => {
      return (await testId('live-path-id').getAttribute('data-path-id')) === ended.toPathId;
    });

    const row = page.locator('[data-testid=ledger-row]').first();
    expect(await row.textContent()).toContain(ended.title);
    for (const number of ['ledger-predicted', 'ledger-realised']) {
      expect(await row.getByTestId(number).textContent()).toMatch(/^−[\d.]+ %/);
    }
    await takePictures(browser, webUrl, {
      name: 'proposals-live',
      path: `/proposals?rollout=${rolloutId}`,
      shows: '[data-testid=ledger-row]',
    });

    await testId('roll-back').first().click();
    await page.locator('[data-testid=ledger-row][data-state=rolledBack]').waitFor({ timeout: 10_000 });
    const back = await admin.rollouts.progress.query({ rolloutId });
    await waitUntil('step rows on the first path again', 15_000, async () => {
      return (await newestPathId(telemetry, back.endedAt ?? Date.now())) === firstPathId;
    });
    await waitUntil('the first path in the top bar again', 10_000, async () => {
      return (await testId('live-path-id').getAttribute('data-path-id')) === firstPathId;
    });

    // Whoever is on call can stop all rollouts from any page, and says so to everybody who looks.
    const killSwitch = testId('kill-switch');
    await killSwitch.click();
    await page.locator('[data-testid=kill-switch][data-on=true]').waitFor({ timeout: 10_000 });
    await page.getByText('the kill switch is on').waitFor({ timeout: 10_000 });
    expect(await admin.rollouts.killSwitch.query()).toMatchObject({ isOn: true, changedBy: 'dashboard' });
    await killSwitch.click();
    await page.locator('[data-testid=kill-switch][data-on=false]').waitFor({ timeout: 10_000 });
    expect(await admin.rollouts.killSwitch.query()).toMatchObject({ isOn: false });

    await clients.stop();
    expect(clients.records.filter(({ fault }) => fault !== '')).toEqual([]);
    expect(clients.records.every(({ finishReason }) => finishReason === 'length')).toBe(true);
    expect(acrossSwitches(clients.records, await switchTimes(telemetry)).length).toBeGreaterThan(5);
    expect(faults).toEqual([]);
    await telemetry.close();
  },
  780_000,
);

const testId = (id: string) => page.getByTestId(id);

async function hasRegimeBand(name: RegExp): Promise<boolean> {
  return (await testId('regime-band').allInnerTexts()).some((text) => name.test(text));
}

/** Lines that join at least two points. */
function drawnLineCount(): Promise<number> {
  return page
    .locator('path.recharts-line-curve')
    .evaluateAll((paths) => paths.filter((path) => /[LC]/.test(path.getAttribute('d') ?? '')).length);
}

/** The id of the newest confirmed one. */
async function currentRegime(admin: RunningProduct['admin']): Promise<string> {
  const now = Date.now();
  const marks = await admin.regimes.list.query({ fromMs: now - 600_000, toMs: now });
  return marks.filter(({ isConfirmed }) => isConfirmed).at(-1)?.regimeId ?? '';
}

/**
 * A path that computes everything twice over and one request at a time: what cures it is worth more than neighbours on the
 * machine can hide, whatever instructions it has.
 */
async function startDear(admin: RunningProduct['admin']): Promise<void> {
  const [worker] = await admin.workers.list.query();
  const dear = worker?.envelope.linearVariants.find((id) => id.startsWith('linear.int8-residual-'));
  const path = `balanced,linear=${dear},maxRunningCount=1`;
  await admin.workers.switchTo.mutate({ workerId: worker?.workerId ?? '', path });
}

/**
 * The optimizer's, opened, so that its reason and its buttons can be seen; by its id, since newer ones may come to stand
 * above it. Among busy neighbours it may promise little of anything, rightly: then somebody else proposes the whole cure.
 */
async function proposalWorthTheMost(admin: RunningProduct['admin']): Promise<Locator> {
  let seenAt = Number.POSITIVE_INFINITY;
  const proposalId = await waitUntil('a proposal for this regime', 240_000, async () => {
    const regimeId = await currentRegime(admin);
    const proposals = await admin.proposals.list.query({ limit: 20 });
    const [best] = proposals
      .filter(({ state, evidence }) => state === 'open' && evidence.regimeId === regimeId)
      .sort((a, b) => costChange(a) - costChange(b));
    if (best === undefined) return undefined;
    seenAt = Math.min(seenAt, Date.now());
    if (costChange(best) < -0.25) return best.proposalId;
    return Date.now() - seenAt < 60_000 ? undefined : await proposeCure(admin, best);
  });
  const card = page.locator(`[data-testid=proposal-card][data-proposal-id="${proposalId}"]`);
  await card.waitFor({ timeout: 10_000 });
  const title = card.getByTestId('proposal-title').getByRole('button');
  if ((await title.count()) > 0) await title.click();
  await card.getByTestId('proposal-reason').waitFor({ timeout: 5000 });
  return card;
}

const costChange = ({ metrics }: Proposal): number =>
  metrics.find(({ metric }) => metric === 'deviceMsPerRequest')?.change.value ?? 0;

/** Every setting of the dear start undone, with the figures and the evidence of the optimizer's own proposal. */
async function proposeCure(admin: RunningProduct['admin'], model: Proposal): Promise<string> {
  const { workerId, from, title, reason, metrics, evidence } = model;
  const linear = from.linear.replace('int8-residual', 'int8') as typeof from.linear;
  const to = { ...from, linear, maxRunningCount: 8 };
  const changes = diffPaths(from, to);
  const { proposalId } = await admin.proposals.create.mutate({
    ...{ workerId, from, to, changes, title, reason, metrics, evidence },
  });
  return proposalId;
}

/** A phase of the demo's kind, driven until it is told to end; answers with faults end the test. */
function drive(kind: 'chats' | 'flood'): { end(): Promise<void> } {
  const endpoint: Endpoint = { url: product.inferenceUrl, modelId: product.modelId, apiKey: null };
  const options: DemoOptions = {
    seed: 1,
    phaseMs: 120_000,
    chatRate: 3,
    longPromptEveryMs: 2500,
    longPromptWords: 500,
    floodConcurrency: 12,
    floodPromptWords: 160,
  };
  const phase = (kind === 'chats' ? chats : flood)(options, generator(options.seed));
  const ending = new AbortController();
  const isLate = AbortSignal.any([ending.signal, stop.signal]);
  const driven = drivePhase(
    endpoint,
    phase,
    ({ fault }) => {
      if (fault !== '' && fault !== 'stopped') faults.push(fault);
    },
    isLate,
  );
  return {
    async end() {
      ending.abort();
      await driven;
    },
  };
}
