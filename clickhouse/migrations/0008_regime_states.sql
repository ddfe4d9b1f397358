-- What the regime detector knows, so that it goes on from there after a crash. Written at each mark and every few minutes.

CREATE TABLE IF NOT EXISTS regime_states (
  savedAt DateTime64(6, 'UTC') COMMENT 'End of the newest window it has seen; UTC',
  detector LowCardinality(String) COMMENT 'What it is the state of: another detector does not read it',
  windowMs UInt32 COMMENT 'Length of its windows, ms',
  state String COMMENT 'Reference, newest windows and known regimes, as JSON' CODEC(ZSTD(3))
)
ENGINE = {engine:MergeTree}
ORDER BY (detector, savedAt)
TTL toDateTime(savedAt) + INTERVAL 30 DAY
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'The regime detector''s state; the newest row counts';
