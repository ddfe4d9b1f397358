import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as nextTurn, setTimeout as pause } from 'node:timers/promises';
import { type ExecutionPath, pathId } from '@variator/kernels/execution-path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Control } from './control.ts';
import type { RolloutView } from './control-types.ts';
import {
  candidate,
  draft,
  incumbent,
  type PathScript,
  reference,
  type ScriptedFleet,
  scriptedFleet,
} from './fixtures/scripted-fleet.ts';
import { openControl } from './open-control.ts';

let folder: string;
let fleet: ScriptedFleet;
let control: Control;
let clock = 1_800_000_000_000;
const now = () => {
  clock += 1;
  return clock;
};
const encode = async (text: string) => [...text].map((letter) => letter.charCodeAt(0) % 4096);
const open = (at = folder) =>
  openControl({
    file: join(at, 'control.sqlite'),
    fleet,
    encode,
    now,
    log: () => undefined,
    drawSeed: () => 11,
  });

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'control-'));
  fleet = scriptedFleet();
  control = await open();
});
afterEach(async () => {
  await control.close();
  rmSync(folder, { recursive: true });
});

async function begin(to: ExecutionPath = candidate): Promise<string> {
  const { proposalId } = await control.createProposal({ ...draft, to }, 'optimizer');
  return (await control.approve(proposalId, 'ada')).rolloutId;
}

async function until(
  rolloutId: string,
  isThere: (view: RolloutView) => boolean,
  of: Control = control,
): Promise<RolloutView> {
  for (;;) {
    const view = await of.rollout(rolloutId);
    if (isThere(view)) return view;
    await pause(5);
  }
}

/** The end with all that follows it: the ledger is the last thing written. */
async function ended(rolloutId: string): Promise<RolloutView> {
  for (;;) {
    const ledger = await control.ledger(10);
    if (ledger.some((entry) => entry.rolloutId === rolloutId)) return control.rollout(rolloutId);
    await pause(5);
  }
}

const livePathId = () => fleet.workers()[0]?.pathId;

test.each<[string, PathScript, RolloutView['state'], RolloutView['verdict']]>([
  ['a path 20 % cheaper goes live', { cost: 0.8 }, 'live', 'better'],
  ['a path that costs the same is not taken', { cost: 1 }, 'kept', 'inconclusive'],
  ['a path 25 % dearer is rolled back', { cost: 1.25 }, 'rolledBack', 'worse'],
  [
    'a cheap path that stretches the gaps is rolled back by itself',
    { cost: 0.8, itlMs: 300 },
    'rolledBack',
    'worse',
  ],
])('%s', async (_, script, state, verdict) => {
  fleet.script(candidate, script);
  const rolloutId = await begin();
  const view = await ended(rolloutId);
  expect(view).toMatchObject({ state, verdict, approvedBy: 'ada', prepareMs: 12 });
  expect(view.message).not.toBe('');
  expect(view.checkSummary).toContain('Equal tokens: 192 of 192 in 8 prompts (4 greedy, 4 seeded)');
  expect(livePathId()).toBe(pathId(state === 'live' ? candidate : incumbent));
  expect(control.livePathFor('w1')).toEqual(state === 'live' ? candidate : null);
  const [proposal] = await control.proposals(1);
  expect(proposal).toMatchObject({ state: 'finished', rolloutId });
});

test('the ledger shows predicted beside realised, and null for what a canary cannot measure', async () => {
  fleet.script(candidate, { cost: 0.8 });
  await ended(await begin());
  const [entry] = await control.ledger(1);
  expect(entry).toMatchObject({
    verdict: 'better',
    state: 'live',
    regimeName: 'long prompts, short answers',
  });
  const [cost, ttft] = entry?.rows ?? [];
  expect(cost).toMatchObject({ metric: 'deviceMsPerRequest', predictedChange: -0.14, predictedLow: -0.18 });
  expect(cost?.realisedChange).toBeCloseTo(-0.2, 1);
  expect(cost?.realisedHigh).toBeLessThan(0);
  expect(ttft).toMatchObject({ metric: 'ttftP95Ms', realisedChange: null, realisedLow: null });
  // What the search learns from it.
  expect(entry?.tried).toMatchObject({
    from: incumbent,
    to: candidate,
    state: 'live',
    isPathsFault: false,
  });
  expect(entry?.tried?.cost?.mean).toBeCloseTo(Math.log(0.8), 1);
  expect(entry?.tried?.cost?.variance).toBeLessThan(0.01);
});

test('an idle worker is not judged: too few steps is inconclusive, never a pass', async () => {
  fleet.script(candidate, { cost: 0.5 });
  fleet.setStepsPerBlock(3);
  const view = await ended(await begin());
  expect(view).toMatchObject({ state: 'kept', verdict: 'inconclusive', pairs: [] });
  expect(view.message).toContain('Not enough traffic');
  expect(livePathId()).toBe(pathId(incumbent));
});

test('a path whose tokens differ where they must be equal never reaches traffic', async () => {
  fleet.script(candidate, { cost: 0.5, wrongTokenEvery: 100 });
  const view = await ended(await begin());
  expect(view).toMatchObject({ state: 'failed', pairs: [], verdict: null });
  expect(view.message).toMatch(/^Tokens differ where they must be equal: prompt 5 \(greedy\), token 4/);
  expect(fleet.switches).toEqual([]);
  expect((await control.ledger(1))[0]?.tried).toMatchObject({ isPathsFault: true, cost: null });
});

test('between paths of other numerics the stated agreement decides', async () => {
  fleet.script(reference, { cost: 0.8, wrongTokenEvery: 10 });
  const view = await ended(await begin(reference));
  expect(view.state).toBe('live');
  expect(view.checkSummary).toContain(
    '29 of 32 greedy tokens agree given the same text (90 %; at least 80 %',
  );
  await control.rollBack(view.rolloutId, 'ada');
  fleet.script(reference, { cost: 0.8, wrongTokenEvery: 3 });
  expect((await ended(await begin(reference))).state).toBe('failed');
});

test('a path that cannot be prepared fails with its reasons', async () => {
  fleet.script(candidate, { faults: ['There is no memory for its weights.'] });
  const view = await ended(await begin());
  expect(view.state).toBe('failed');
  expect(view.message).toContain('There is no memory for its weights.');
});

test('approving twice, also at the same moment, is one rollout', async () => {
  fleet.holdFromBlock(2);
  const { proposalId } = await control.createProposal(draft, 'optimizer');
  const [first, second] = await Promise.all([
    control.approve(proposalId, 'ada'),
    control.approve(proposalId, 'ada'),
  ]);
  expect(second).toEqual(first);
  await fleet.held();
  expect(await control.approve(proposalId, 'bob')).toEqual(first);
  expect(await control.rollouts(10)).toHaveLength(1);
  const approvals = (await control.audit(100)).filter(({ what }) => what === 'approve');
  expect(approvals).toMatchObject([{ who: 'ada', subject: proposalId }]);
});

test("a proposal is withdrawn while it is open, is nobody's decision, and can be made anew", async () => {
  const { proposalId } = await control.createProposal(draft, 'optimizer');
  const reason = 'The workload has changed.';
  const withdrawn = await control.withdraw(proposalId, reason, 'optimizer');
  expect(withdrawn).toMatchObject({ state: 'superseded', decidedBy: 'optimizer', rolloutId: '' });
  await expect(control.approve(proposalId, 'ada')).rejects.toThrow('is superseded; approve an open one');
  expect((await control.audit(1))[0]).toMatchObject({ what: 'supersede', who: 'optimizer', details: reason });
  const again = await control.createProposal(draft, 'optimizer');
  expect(again.proposalId).not.toBe(proposalId);
  // Too late for what somebody has approved.
  fleet.holdFromBlock(2);
  const { rolloutId } = await control.approve(again.proposalId, 'ada');
  expect(await control.withdraw(again.proposalId, reason, 'optimizer')).toMatchObject({
    state: 'approved',
    rolloutId,
  });
  await expect(control.withdraw('prop_unknown', reason, 'optimizer')).rejects.toThrow('There is no proposal');
});

test('one rollout at a time on a worker', async () => {
  fleet.holdFromBlock(2);
  const rolloutId = await begin();
  await expect(begin(reference)).rejects.toThrow(`Rollout ${rolloutId} is under way on w1: one at a time.`);
  await expect(control.switchWorkerTo('w1', reference, 'ada')).rejects.toThrow('is under way on w1');
});

test('a person stops a canary and the worker is back on its path', async () => {
  fleet.script(candidate, { cost: 0.8 });
  fleet.holdFromBlock(5);
  const rolloutId = await begin();
  await fleet.held();
  const view = await control.rollBack(rolloutId, 'bob');
  expect(view).toMatchObject({ state: 'rolledBack', canRollBack: false });
  expect(view.message).toContain('Rolled back by bob');
  expect(livePathId()).toBe(pathId(incumbent));
  expect(await control.rollBack(rolloutId, 'bob')).toMatchObject({ state: 'rolledBack' });
  expect(await control.ledger(10)).toMatchObject([
    { rolloutId, state: 'rolledBack', verdict: 'inconclusive' },
  ]);
});

test('the optimizer ends a canary that a shift of the workload would spoil, and takes no live path back', async () => {
  fleet.script(candidate, { cost: 0.8 });
  fleet.holdFromBlock(5);
  const rolloutId = await begin();
  await fleet.held();
  const view = await control.rollBack(rolloutId, 'optimizer');
  expect(view).toMatchObject({ state: 'rolledBack', verdict: 'inconclusive' });
  expect(view.message).toContain('the workload has changed');
  expect(livePathId()).toBe(pathId(incumbent));
  fleet.script(reference, { cost: 0.8 });
  fleet.holdFromBlock(Number.POSITIVE_INFINITY);
  const next = await begin(reference);
  expect(await ended(next)).toMatchObject({ state: 'live' });
  expect(await control.rollBack(next, 'optimizer')).toMatchObject({ state: 'live' });
  expect(livePathId()).toBe(pathId(reference));
});

test('a live path can be taken back, once, and the ledger says so', async () => {
  fleet.script(candidate, { cost: 0.8 });
  const rolloutId = await begin();
  expect(await ended(rolloutId)).toMatchObject({ state: 'live', canRollBack: true });
  const [one, other] = await Promise.all([
    control.rollBack(rolloutId, 'bob'),
    control.rollBack(rolloutId, 'bob'),
  ]);
  expect(one).toMatchObject({ state: 'rolledBack', verdict: 'better', canRollBack: false });
  expect(other).toEqual(one);
  expect(livePathId()).toBe(pathId(incumbent));
  expect(control.livePathFor('w1')).toEqual(incumbent);
  expect(await control.ledger(10)).toMatchObject([{ rolloutId, state: 'rolledBack', verdict: 'better' }]);
  expect(fleet.switches.map((change) => change.pathId)).toEqual([pathId(candidate), pathId(incumbent)]);
});

test('a rollout may be taken back from the moment it is live, while its promotion is still being stored', async () => {
  fleet.script(candidate, { cost: 0.8 });
  const rolloutId = await begin();
  let view = await control.rollout(rolloutId);
  while (view.state === 'warming' || view.state === 'canary') {
    await nextTurn();
    view = await control.rollout(rolloutId);
  }
  expect(view).toMatchObject({ state: 'live', canRollBack: true });
  expect(await control.rollBack(rolloutId, 'bob')).toMatchObject({ state: 'rolledBack' });
  expect(livePathId()).toBe(pathId(incumbent));
  expect(control.livePathFor('w1')).toEqual(incumbent);
});

test('a live path with another promotion on top of it stays', async () => {
  fleet.script(candidate, { cost: 0.8 });
  const rolloutId = await begin();
  await ended(rolloutId);
  await control.switchWorkerTo('w1', reference, 'ada');
  expect(await control.rollout(rolloutId)).toMatchObject({ state: 'live', canRollBack: false });
  await expect(control.rollBack(rolloutId, 'ada')).rejects.toThrow(
    'a later change of path stands on top of it',
  );
  expect(livePathId()).toBe(pathId(reference));
});

test('the kill switch stops the canary, refuses approvals while it is on, and outlives a restart', async () => {
  fleet.holdFromBlock(4);
  const rolloutId = await begin();
  await fleet.held();
  await control.setKillSwitch(true, 'latency complaints', 'bob');
  expect(await control.rollout(rolloutId)).toMatchObject({ state: 'rolledBack' });
  expect(livePathId()).toBe(pathId(incumbent));
  await control.close();
  control = await open();
  expect(control.killSwitch()).toMatchObject({ isOn: true, changedBy: 'bob', reason: 'latency complaints' });
  await expect(begin()).rejects.toThrow('The kill switch is on (latency complaints).');
  await control.setKillSwitch(false, '', 'bob');
  fleet.holdFromBlock(Number.POSITIVE_INFINITY);
  expect(await ended(await begin())).toMatchObject({ state: 'kept' });
});

test('a worker lost during the canary fails the rollout and keeps no path', async () => {
  fleet.holdFromBlock(3);
  const rolloutId = await begin();
  await fleet.held();
  fleet.loseWorker();
  const view = await ended(rolloutId);
  expect(view).toMatchObject({
    state: 'failed',
    message: 'w1 was lost: its process ended',
    canRollBack: false,
  });
  expect(control.livePathFor('w1')).toBeNull();
});

test('a canary that a killed gateway left behind is failed at the next start', async () => {
  fleet.holdFromBlock(4);
  const rolloutId = await begin();
  await fleet.held();
  // The files as a kill leaves them, log not yet folded in.
  const left = join(folder, 'left');
  mkdirSync(left);
  for (const name of ['control.sqlite', 'control.sqlite-wal'])
    copyFileSync(join(folder, name), join(left, name));
  const next = await open(left);
  expect(await next.rollout(rolloutId)).toMatchObject({
    state: 'failed',
    message: 'It was interrupted by a restart.',
    canRollBack: false,
  });
  expect(await next.ledger(10)).toMatchObject([
    { rolloutId, state: 'failed', tried: { isPathsFault: false } },
  ]);
  expect(await next.proposals(10)).toMatchObject([{ state: 'finished' }]);
  await next.close();
});

test('the last promoted path is known after a restart, with its rollout still to be taken back', async () => {
  fleet.script(candidate, { cost: 0.8 });
  const rolloutId = await begin();
  const before = await ended(rolloutId);
  await control.close();
  control = await open();
  expect(control.livePathFor('w1')).toEqual(candidate);
  expect(await control.rollout(rolloutId)).toEqual(before);
  expect((await control.rollBack(rolloutId, 'ada')).state).toBe('rolledBack');
  expect(livePathId()).toBe(pathId(incumbent));
});

test('closing ends a canary as interrupted and puts the worker back', async () => {
  fleet.holdFromBlock(4);
  const rolloutId = await begin();
  await fleet.held();
  await control.close();
  expect(livePathId()).toBe(pathId(incumbent));
  control = await open();
  expect(await control.rollout(rolloutId)).toMatchObject({ state: 'failed' });
});

test('a proposal made again while open keeps its id and takes the fresher numbers', async () => {
  const first = await control.createProposal(draft, 'optimizer');
  const again = await control.createProposal({ ...draft, title: 'Now 17 % fewer' }, 'optimizer');
  expect(again).toMatchObject({ proposalId: first.proposalId, title: 'Now 17 % fewer', state: 'open' });
  expect(again.changes).toMatchObject([{ setting: 'tokenBudget' }, { setting: 'maxRunningCount' }]);
  expect(await control.proposals(10)).toHaveLength(1);
});

test('what was proposed for another live path is superseded', async () => {
  const { proposalId } = await control.createProposal(draft, 'optimizer');
  await control.switchWorkerTo('w1', reference, 'ada');
  await expect(control.approve(proposalId, 'ada')).rejects.toThrow(`Proposal ${proposalId} is superseded`);
  await expect(control.createProposal(draft, 'optimizer')).rejects.toThrow('look again before proposing');
});

test('a rejected proposal stays rejected', async () => {
  const { proposalId } = await control.createProposal(draft, 'optimizer');
  expect(await control.reject(proposalId, 'not today', 'ada')).toMatchObject({
    state: 'rejected',
    decidedBy: 'ada',
  });
  expect(await control.reject(proposalId, 'not today', 'bob')).toMatchObject({ decidedBy: 'ada' });
  await expect(control.approve(proposalId, 'ada')).rejects.toThrow('is rejected');
});

test.each([
  ['the optimizer', 'optimizer', {}, 'The optimizer proposes; a person approves.'],
  ['anybody under "observe"', 'ada', { autonomy: 'observe' } as const, 'The policy only observes'],
])('%s cannot approve', async (_, who, change, sentence) => {
  await control.setPolicy(change, 'ada');
  const { proposalId } = await control.createProposal(draft, 'optimizer');
  await expect(control.approve(proposalId, who)).rejects.toThrow(sentence);
});

test.each([
  ['no worker', { workerId: 'w9' }, 'There is no worker "w9".'],
  ['no change', { to: incumbent }, 'The proposal changes nothing.'],
  ['an illegal path', { to: { ...candidate, tokenBudget: 4096 } }, 'tokenBudget must be a whole number'],
])('a proposal with %s is refused', async (_, wrong, sentence) => {
  await expect(control.createProposal({ ...draft, ...wrong }, 'optimizer')).rejects.toThrow(sentence);
});

test('a running view shows its pairs so far and can be rolled back', async () => {
  fleet.script(candidate, { cost: 0.8 });
  fleet.holdFromBlock(5);
  const rolloutId = await begin();
  await fleet.held();
  const view = await until(rolloutId, ({ pairs }) => pairs.length === 2);
  expect(view).toMatchObject({ state: 'canary', plannedPairCount: 12, verdict: null, canRollBack: true });
  expect(view.pairs[0]).toMatchObject({ pairIndex: 0, controlStepCount: 22, candidateStepCount: 22 });
  expect(view.confidence?.mean).toBeCloseTo(Math.log(0.8), 1);
  expect(control.standingPathOf(fleet.workers()[0] ?? expect.fail())).toEqual(incumbent);
});
