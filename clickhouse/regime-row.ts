/** Tables `regimes`, one row per mark of a changed workload, and `regime_states`. Written by the optimizer's service. */
export interface RegimeRow {
  readonly startedAt: number;
  readonly detectedAt: number;
  readonly regimeId: string;
  /** For people, made from the features: "long-context agents, 95 % cached, bursty". */
  readonly name: string;
  readonly isConfirmed: boolean;
  /** The windows' features by name, as JSON. */
  readonly features: string;
  readonly detector: string;
}

export interface RegimeStateRow {
  readonly savedAt: number;
  readonly detector: string;
  readonly windowMs: number;
  /** What the detector knows, as JSON. */
  readonly state: string;
}
