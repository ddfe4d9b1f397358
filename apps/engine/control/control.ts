/**
 * The control plane as the rest of the gateway sees it: policy, proposals, rollouts, ledger, kill switch, live paths.
 * Implemented by open-control.ts, asked by the API. One owner of the control database; everyone else receives copies.
 */
import type { ExecutionPath } from '@variator/kernels/execution-path';
import type { ProposalDraft } from '@variator/optimizer/proposal';
import type { WorkerView } from '../fleet/fleet.ts';
import type { AuditEntry, KillSwitch } from './control-store.ts';
import type { LedgerEntry, Policy, Proposal, RolloutView } from './control-types.ts';
import type { PolicyChange } from './policy.ts';

/** Every mutation throws ControlError (or FleetError where the worker is not there), and is written to the audit. */
export interface Control {
  policy(): Policy;
  setPolicy(change: PolicyChange, who: string): Promise<Policy>;

  /** Newest first. */
  proposals(limit: number): Promise<Proposal[]>;
  /** The same change of path for the same worker, while open, keeps its id and takes the fresher numbers. */
  createProposal(draft: ProposalDraft, who: string): Promise<Proposal>;
  /** Approving twice gives the same rollout. */
  approve(proposalId: string, who: string): Promise<{ rolloutId: string }>;
  reject(proposalId: string, reason: string, who: string): Promise<Proposal>;
  /** Takes an open proposal back as superseded: nobody has decided against it, its evidence no longer holds. */
  withdraw(proposalId: string, reason: string, who: string): Promise<Proposal>;

  /** Newest first. */
  rollouts(limit: number): Promise<RolloutView[]>;
  rollout(rolloutId: string): Promise<RolloutView>;
  /** Ends a canary at once, or takes a live path back to the one before it. Twice is once. */
  rollBack(rolloutId: string, who: string): Promise<RolloutView>;
  ledger(limit: number): Promise<LedgerEntry[]>;

  killSwitch(): KillSwitch;
  setKillSwitch(isOn: boolean, reason: string, who: string): Promise<KillSwitch>;
  /** A person puts a worker on a path without a canary; the path becomes its last promoted one. */
  switchWorkerTo(workerId: string, path: ExecutionPath, who: string): Promise<{ pathId: string }>;
  /** The worker's last promoted path, also after a restart; null where none was ever promoted. */
  livePathFor(workerId: string): ExecutionPath | null;
  /** What the worker runs outside a canary's blocks: its incumbent while one is under way, else its path. */
  standingPathOf(worker: WorkerView): ExecutionPath;
  audit(limit: number): Promise<AuditEntry[]>;

  /** The workload's regime of this moment, for the overview; '' before any was published. */
  regimeName(): string;
  setRegimeName(name: string): void;
  /** Ends running rollouts as interrupted and closes the database. To be called before the fleet is closed. */
  close(): Promise<void>;
}
