/** Table `regimes`: one row per mark of a changed workload. Written by the optimizer's service. */
export interface RegimeRow {
  readonly startedAt: number;
  readonly detectedAt: number;
  readonly regimeId: string;
  /** For people, made from the features: "short chats, long prompts now and then". */
  readonly name: string;
  readonly isConfirmed: boolean;
  /** The window's features by name, as JSON. */
  readonly features: string;
  readonly detector: string;
}
