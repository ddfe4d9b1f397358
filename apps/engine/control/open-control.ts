/**
 * Opens the control plane: its rules over store and rollouts. Called by main.ts. Checks whether a change is allowed and
 * leaves acting it out to rollout-runs.ts. It works with ClickHouse, the optimizer and the dashboard dead.
 */
import { randomBytes, randomInt, randomUUID } from 'node:crypto';
import { diffPaths, type ExecutionPath, pathFaults, pathId } from '@variator/kernels/execution-path';
import type { ProposalDraft } from '@variator/optimizer/proposal';
import { type Fleet, FleetError, type WorkerView } from '../fleet/fleet.ts';
import type { Control } from './control.ts';
import { ControlError } from './control-error.ts';
import { type AuditEntry, type KillSwitch, openControlStore } from './control-store.ts';
import type { Proposal } from './control-types.ts';
import { applyChanges, defaultPolicy, mergeChanges, policyChangeSchema } from './policy.ts';
import { judgingPlanOf, type RolloutOpening } from './rollout-record.ts';
import { rolloutRuns } from './rollout-runs.ts';

export interface ControlOptions {
  /** The SQLite file, made where it is missing. */
  readonly file: string;
  readonly fleet: Fleet;
  /** The model's tokenizer, for the equality check's prompts. */
  readonly encode: (text: string) => Promise<readonly number[]>;
  readonly log: (line: string) => void;
  readonly now: () => number;
  /** The policy's price until a person sets another. */
  readonly deviceUsdPerHour?: number;
  /** Draws the order of a canary's blocks; tests fix it. */
  readonly drawSeed?: () => number;
}

/** Alternatives a person can weigh; the optimizer's older ones make room. */
const MOST_OPEN_PER_WORKER = 4;
/** The optimizer's service names itself so; it proposes, ends canaries across a shift of regime, and never approves. */
const OPTIMIZER_CLIENT = 'optimizer';

/** Opens the database, migrates it and finishes what a restart interrupted. @throws ControlError naming the file */
export async function openControl(options: ControlOptions): Promise<Control> {
  const { fleet, encode, log, drawSeed = () => randomInt(2 ** 31) } = options;
  /** Whole milliseconds: the tables' times are integers. */
  const now = () => Math.floor(options.now());
  const store = await openControlStore(options.file, now());
  const defaults = defaultPolicy(options.deviceUsdPerHour);
  let changes = await store.policyChanges();
  let policy = applyChanges(defaults, changes);
  let killSwitch = await store.killSwitch();
  let regimeName = '';
  let turn: Promise<unknown> = Promise.resolve();

  const runs = rolloutRuns({ store, fleet, encode, now, log, onPromoted: supersedeOthers });
  await runs.restore();

  /** One change at a time, so that a check and the act it allows are never apart. */
  function inTurn<Answer>(change: () => Promise<Answer>): Promise<Answer> {
    const answer = turn.then(change);
    turn = answer.catch(() => undefined);
    return answer;
  }

  function auditOf(what: string, subject: string, who: string, details = '', auditId = ''): AuditEntry {
    return { auditId: auditId || randomUUID(), at: now(), who, what, subject, details };
  }

  function killSwitchNow(): KillSwitch {
    return killSwitch;
  }

  function workerOf(workerId: string): WorkerView {
    const worker = fleet.workers().find((candidate) => candidate.workerId === workerId);
    if (!worker) throw new FleetError(`There is no worker "${workerId}".`);
    return worker;
  }

  async function proposalOf(proposalId: string): Promise<Proposal> {
    const proposal = await store.proposal(proposalId);
    if (!proposal) throw new ControlError('notFound', `There is no proposal "${proposalId}".`);
    return proposal;
  }

  function standingPathOf(worker: WorkerView): ExecutionPath {
    return runs.openingOn(worker.workerId)?.from ?? worker.path;
  }

  async function supersede({ proposalId }: Proposal, why: string, who = 'control'): Promise<void> {
    const to = { state: 'superseded', rolloutId: '', decidedBy: who, decidedAt: now() } as const;
    const audit = auditOf('supersede', proposalId, who, why, `supersede:${proposalId}`);
    await store.moveProposal(proposalId, 'open', to, audit);
  }

  async function withdraw(proposalId: string, reason: string, who: string): Promise<Proposal> {
    // Whoever was approved in the meantime has a rollout, which is ended by itself.
    await supersede(await proposalOf(proposalId), reason, who);
    return await proposalOf(proposalId);
  }

  async function supersedeOthers(workerId: string, path: ExecutionPath): Promise<void> {
    for (const proposal of await store.openProposals(workerId)) {
      if (proposal.fromPathId !== pathId(path)) await supersede(proposal, 'The live path has changed.');
    }
  }

  async function createProposal(draft: ProposalDraft, who: string): Promise<Proposal> {
    const worker = workerOf(draft.workerId);
    const [fromPathId, toPathId] = [pathId(draft.from), pathId(draft.to)];
    if (fromPathId === toPathId) throw new ControlError('invalid', 'The proposal changes nothing.');
    const faults = pathFaults(draft.to, worker.envelope);
    if (faults.length > 0) throw new ControlError('invalid', faults.join(' '));
    const standing = pathId(standingPathOf(worker));
    if (fromPathId !== standing) {
      throw new ControlError(
        'conflict',
        `${draft.workerId} runs path ${standing} by now, not ${fromPathId}: look again before proposing.`,
      );
    }
    const open = await store.openProposals(draft.workerId);
    const same = open.find((other) => other.fromPathId === fromPathId && other.toPathId === toPathId);
    const proposal: Proposal = {
      ...draft,
      changes: diffPaths(draft.from, draft.to),
      proposalId: same?.proposalId ?? `prop_${randomBytes(6).toString('hex')}`,
      createdAt: same?.createdAt ?? now(),
      state: 'open',
      fromPathId,
      toPathId,
      rolloutId: '',
      decidedBy: '',
      decidedAt: null,
    };
    const { proposalId } = proposal;
    await store.saveProposal(
      proposal,
      auditOf('propose', proposalId, who, draft.title, `propose:${proposalId}`),
    );
    const others = open.filter((other) => other.proposalId !== proposalId);
    for (const oldest of others.slice(0, Math.max(0, others.length + 1 - MOST_OPEN_PER_WORKER))) {
      await supersede(oldest, 'Newer proposals have taken its place.');
    }
    return proposal;
  }

  async function approve(proposalId: string, who: string): Promise<{ rolloutId: string }> {
    const proposal = await proposalOf(proposalId);
    const { state, workerId, from, to, rolloutId: begun } = proposal;
    if (state === 'approved' || state === 'finished') return { rolloutId: begun };
    if (state !== 'open') {
      throw new ControlError('conflict', `Proposal ${proposalId} is ${state}; approve an open one.`);
    }
    if (killSwitch.isOn) {
      throw new ControlError('refused', `The kill switch is on (${killSwitch.reason || 'no reason given'}).`);
    }
    if (policy.autonomy === 'observe') {
      throw new ControlError(
        'refused',
        'The policy only observes: set autonomy to "oneClick" to approve proposals.',
      );
    }
    if (who === OPTIMIZER_CLIENT) {
      throw new ControlError('refused', 'The optimizer proposes; a person approves.');
    }
    const worker = workerOf(workerId);
    const other = runs.openingOn(workerId);
    if (other) {
      throw new ControlError(
        'conflict',
        `Rollout ${other.rolloutId} is under way on ${workerId}: one at a time.`,
      );
    }
    if (pathId(worker.path) !== proposal.fromPathId) {
      await supersede(proposal, 'The live path has changed.');
      throw new ControlError(
        'conflict',
        `${workerId} runs path ${pathId(worker.path)} by now, not ${proposal.fromPathId}; the proposal is superseded.`,
      );
    }
    const opening: RolloutOpening = {
      kind: 'begun',
      at: now(),
      rolloutId: `roll_${randomBytes(6).toString('hex')}`,
      proposalId,
      workerId,
      title: proposal.title,
      regimeName: proposal.evidence.regimeName || regimeName,
      regimeId: proposal.evidence.regimeId,
      deviceKind: worker.envelope.deviceKind,
      modelHash: worker.envelope.modelHash,
      replayedLogCost: proposal.evidence.replayedLogCost ?? null,
      from,
      to,
      approvedBy: who,
      judgingPlan: judgingPlanOf(proposal, policy),
      blockDurationMs: policy.canary.blockDurationMs,
      leastStepsPerBlock: policy.canary.leastStepsPerBlock,
      seed: drawSeed(),
      predicted: proposal.metrics,
      incumbentRolloutId: runs.livePath(workerId)?.rolloutId ?? '',
    };
    const { rolloutId } = opening;
    const audit = auditOf('approve', proposalId, who, rolloutId, `approve:${proposalId}`);
    if (!(await store.beginRollout(opening, audit))) {
      throw new ControlError('conflict', `Proposal ${proposalId} was decided in the meantime.`);
    }
    log(`rollout ${rolloutId} begins on ${workerId}, approved by ${who}: ${proposal.title}`);
    runs.begin(opening);
    // Thrown while the opening was being stored: what stopAll could not see yet.
    if (killSwitchNow().isOn) await runs.stopAll('control', 'the kill switch was thrown.');
    return { rolloutId };
  }

  async function reject(proposalId: string, reason: string, who: string): Promise<Proposal> {
    const to = { state: 'rejected', rolloutId: '', decidedBy: who, decidedAt: now() } as const;
    const audit = auditOf('reject', proposalId, who, reason, `reject:${proposalId}`);
    const isRejected = await store.moveProposal(proposalId, 'open', to, audit);
    const proposal = await proposalOf(proposalId);
    if (!isRejected && proposal.state !== 'rejected') {
      throw new ControlError(
        'conflict',
        `Proposal ${proposalId} is ${proposal.state}; only an open one can go.`,
      );
    }
    return proposal;
  }

  async function switchWorkerTo(workerId: string, path: ExecutionPath, who: string) {
    const worker = workerOf(workerId);
    const under = runs.openingOn(workerId);
    if (under) {
      throw new ControlError(
        'conflict',
        `Rollout ${under.rolloutId} is under way on ${workerId}; stop it first.`,
      );
    }
    const faults = pathFaults(path, worker.envelope);
    if (faults.length > 0) throw new ControlError('invalid', faults.join(' '));
    const wanted = pathId(path);
    if (worker.pathId !== wanted) {
      const prepared = await fleet.prepare(workerId, path);
      if (prepared.faults.length > 0) throw new ControlError('refused', prepared.faults.join(' '));
      await fleet.switchTo(workerId, path, '');
    }
    await runs.promote(
      { workerId, path, rolloutId: '', promotedAt: now() },
      auditOf('switchTo', workerId, who, wanted),
    );
    return { pathId: wanted };
  }

  return {
    policy: () => policy,
    setPolicy: (change, who) =>
      inTurn(async () => {
        const merged = mergeChanges(changes, policyChangeSchema.parse(change));
        const next = applyChanges(defaults, merged);
        await store.savePolicyChanges(merged, auditOf('setPolicy', 'policy', who, JSON.stringify(change)));
        [changes, policy] = [merged, next];
        return next;
      }),
    proposals: (limit) => store.proposals(limit),
    createProposal: (draft, who) => inTurn(() => createProposal(draft, who)),
    approve: (proposalId, who) => inTurn(() => approve(proposalId, who)),
    reject: (proposalId, reason, who) => inTurn(() => reject(proposalId, reason, who)),
    withdraw: (proposalId, reason, who) => inTurn(() => withdraw(proposalId, reason, who)),
    rollouts: (limit) => runs.list(limit),
    rollout: (rolloutId) => runs.view(rolloutId),
    rollBack: async (rolloutId, who) => {
      // A canary under way is stopped at once; only a live path waits its turn.
      const isOptimizer = who === OPTIMIZER_CLIENT;
      const reason = isOptimizer
        ? 'the workload has changed: what the canary compares would be of two regimes.'
        : 'asked for by a person.';
      const stopped = await runs.stop(rolloutId, who, reason);
      if (stopped !== null) return stopped;
      return isOptimizer ? runs.view(rolloutId) : inTurn(() => runs.rollBack(rolloutId, who));
    },
    ledger: (limit) => store.ledger(limit),
    killSwitch: killSwitchNow,
    async setKillSwitch(isOn, reason, who) {
      // Acts before it waits for anything, also where the database is the fault.
      killSwitch = { isOn, changedAt: now(), changedBy: who, reason };
      const saved = killSwitch;
      const stopped = isOn ? runs.stopAll(who, 'the kill switch was thrown.') : Promise.resolve();
      log(`the kill switch is ${isOn ? 'on' : 'off'}, by ${who}`);
      await stopped;
      await store.saveKillSwitch(saved, auditOf('killSwitch', isOn ? 'on' : 'off', who, reason));
      return saved;
    },
    switchWorkerTo: (workerId, path, who) => inTurn(() => switchWorkerTo(workerId, path, who)),
    livePathFor: (workerId) => runs.livePath(workerId)?.path ?? null,
    standingPathOf,
    audit: (limit) => store.audit(limit),
    regimeName: () => regimeName,
    setRegimeName: (name) => {
      regimeName = name;
    },
    async close() {
      await runs.close();
      await turn;
      await store.close();
    },
  };
}
