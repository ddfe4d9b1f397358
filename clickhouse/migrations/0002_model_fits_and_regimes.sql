-- What the optimizer learned: step-time fits, and marks of a changed workload. Few rows, kept for good.

CREATE TABLE IF NOT EXISTS model_fits (
  fitId String COMMENT 'Hash of the fit''s content',
  deviceKind LowCardinality(String) COMMENT 'Kind of device it holds for',
  modelHash LowCardinality(String) COMMENT 'Model it holds for',
  kernelsId LowCardinality(String) COMMENT 'Kernels it holds for',
  fittedAt DateTime64(6, 'UTC') COMMENT 'When it was made; UTC',
  sampleCount UInt32 COMMENT 'Steps it was made from',
  kneeTokens Float64 COMMENT 'Where the hinge term begins, tokens',
  betaMs String COMMENT 'Its seven coefficients by name, ms, as JSON',
  heldOutMape Nullable(Float64) COMMENT 'Mean absolute relative error on held-out steps, 0..1',
  heldOutCount UInt32 COMMENT 'Held-out steps',
  logBand90 Nullable(Float64) COMMENT 'Half-width of the 90 % band of log(measured / predicted)'
)
ENGINE = {engine:MergeTree}
ORDER BY (deviceKind, modelHash, kernelsId, fittedAt)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'One row per published step-time fit';

CREATE TABLE IF NOT EXISTS regimes (
  startedAt DateTime64(6, 'UTC') COMMENT 'When the changed workload began; UTC',
  detectedAt DateTime64(6, 'UTC') COMMENT 'When the detector marked it; UTC',
  regimeId String COMMENT 'Names the regime',
  name String COMMENT 'For people, made from the features',
  isConfirmed Bool COMMENT 'The windows after the mark agreed',
  features String COMMENT 'The window''s features by name, as JSON',
  detector LowCardinality(String) COMMENT 'What marked it'
)
ENGINE = {engine:MergeTree}
ORDER BY (startedAt, detectedAt)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'One row per mark of a changed workload; a later row of the same regimeId and startedAt replaces it';
