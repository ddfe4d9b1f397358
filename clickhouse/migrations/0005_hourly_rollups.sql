-- What charts of up to 90 days and bills stand on: requests and steps summed by whole hours (UTC), filled by a view with
-- every insert. A view's part of an insert is deduplicated by the insert's own token, so an hour is exact after a retry.
-- Each table is made anew and filled from the rows there are before its view begins. So the file may be cut off anywhere
-- and repeated, and an insert that an earlier try left running goes with the table it was for.

DROP VIEW IF EXISTS requests_to_hours;
DROP TABLE IF EXISTS requests_hourly SYNC;
CREATE TABLE requests_hourly (
  hour DateTime('UTC') COMMENT 'Hour in which they ended; UTC',
  modelId LowCardinality(String) COMMENT 'Model that served them',
  serviceTier LowCardinality(String) COMMENT 'priority, default or flex',
  outcome LowCardinality(String) COMMENT 'What they came to, as in requests',
  requestCount SimpleAggregateFunction(sum, UInt64) COMMENT 'Requests',
  objectiveCount SimpleAggregateFunction(sum, UInt64) COMMENT 'Those that had objectives and whose client stayed',
  withinObjectivesCount SimpleAggregateFunction(sum, UInt64) COMMENT 'Those of them that met all of these',
  promptTokenCount SimpleAggregateFunction(sum, UInt64) COMMENT 'Prompt tokens, cached ones included',
  cachedTokenCount SimpleAggregateFunction(sum, UInt64) COMMENT 'Prompt tokens taken from the prefix cache',
  completionTokenCount SimpleAggregateFunction(sum, UInt64) COMMENT 'Tokens generated',
  prefillDeviceMs SimpleAggregateFunction(sum, Float64) COMMENT 'Device time charged for prompt tokens, ms',
  decodeDeviceMs SimpleAggregateFunction(sum, Float64) COMMENT 'Device time charged for generated tokens, ms',
  speculationWasteDeviceMs SimpleAggregateFunction(sum, Float64) COMMENT 'Device time charged for discarded tokens, ms',
  recomputeDeviceMs SimpleAggregateFunction(sum, Float64) COMMENT 'Device time charged for tokens computed again, ms',
  ttftMs AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Float64) COMMENT 'TTFT of streamed requests with a token, ms',
  tpotMs AggregateFunction(quantilesTDigestWeighted(0.5, 0.95, 0.99), Float64, UInt32) COMMENT 'Gaps between tokens of streamed requests, ms: each request''s mean gap, as often as it had gaps'
)
ENGINE = {engine:AggregatingMergeTree}
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, modelId, serviceTier, outcome)
TTL hour + INTERVAL 100 DAY DELETE
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Requests by hour, model, tier and outcome';

INSERT INTO requests_hourly SELECT
  toStartOfHour(fromUnixTimestamp64Milli(toInt64(floor(toUnixTimestamp64Micro(arrivedAt) / 1000 + e2eMs)), 'UTC')) AS hour,
  modelId,
  serviceTier,
  multiIf(requests.outcome != '', requests.outcome, finishReason IN ('stop', 'length'), 'ok', finishReason = 'error', 'failed', finishReason) AS outcome,
  count() AS requestCount,
  countIf(finishReason != 'cancelled' AND ttftObjectiveMs > 0) AS objectiveCount,
  countIf(isWithinObjectives AND finishReason IN ('stop', 'length') AND ttftObjectiveMs > 0) AS withinObjectivesCount,
  sum(requests.promptTokenCount) AS promptTokenCount,
  sum(requests.cachedTokenCount) AS cachedTokenCount,
  sum(requests.completionTokenCount) AS completionTokenCount,
  sum(requests.prefillDeviceMs) AS prefillDeviceMs,
  sum(requests.decodeDeviceMs) AS decodeDeviceMs,
  sum(requests.speculationWasteDeviceMs) AS speculationWasteDeviceMs,
  sum(requests.recomputeDeviceMs) AS recomputeDeviceMs,
  quantilesTDigestStateIf(0.5, 0.95, 0.99)(requests.ttftMs, requests.ttftMs > 0 AND isStreamed) AS ttftMs,
  quantilesTDigestWeightedStateIf(0.5, 0.95, 0.99)(requests.tpotMs, toUInt32(greatest(requests.completionTokenCount, 1) - 1), isStreamed AND requests.completionTokenCount > 1) AS tpotMs
FROM requests
GROUP BY hour, modelId, serviceTier, outcome;

CREATE MATERIALIZED VIEW requests_to_hours TO requests_hourly AS SELECT
  toStartOfHour(fromUnixTimestamp64Milli(toInt64(floor(toUnixTimestamp64Micro(arrivedAt) / 1000 + e2eMs)), 'UTC')) AS hour,
  modelId,
  serviceTier,
  multiIf(requests.outcome != '', requests.outcome, finishReason IN ('stop', 'length'), 'ok', finishReason = 'error', 'failed', finishReason) AS outcome,
  count() AS requestCount,
  countIf(finishReason != 'cancelled' AND ttftObjectiveMs > 0) AS objectiveCount,
  countIf(isWithinObjectives AND finishReason IN ('stop', 'length') AND ttftObjectiveMs > 0) AS withinObjectivesCount,
  sum(requests.promptTokenCount) AS promptTokenCount,
  sum(requests.cachedTokenCount) AS cachedTokenCount,
  sum(requests.completionTokenCount) AS completionTokenCount,
  sum(requests.prefillDeviceMs) AS prefillDeviceMs,
  sum(requests.decodeDeviceMs) AS decodeDeviceMs,
  sum(requests.speculationWasteDeviceMs) AS speculationWasteDeviceMs,
  sum(requests.recomputeDeviceMs) AS recomputeDeviceMs,
  quantilesTDigestStateIf(0.5, 0.95, 0.99)(requests.ttftMs, requests.ttftMs > 0 AND isStreamed) AS ttftMs,
  quantilesTDigestWeightedStateIf(0.5, 0.95, 0.99)(requests.tpotMs, toUInt32(greatest(requests.completionTokenCount, 1) - 1), isStreamed AND requests.completionTokenCount > 1) AS tpotMs
FROM requests
GROUP BY hour, modelId, serviceTier, outcome;

DROP VIEW IF EXISTS requests_to_tenants;
DROP TABLE IF EXISTS tenants_hourly SYNC;
CREATE TABLE tenants_hourly (
  hour DateTime('UTC') COMMENT 'Hour in which they ended; UTC',
  tenant LowCardinality(String) COMMENT 'Whose requests they were',
  modelId LowCardinality(String) COMMENT 'Model that served them',
  serviceTier LowCardinality(String) COMMENT 'priority, default or flex',
  outcome LowCardinality(String) COMMENT 'What they came to, as in requests',
  requestCount SimpleAggregateFunction(sum, UInt64) COMMENT 'Requests',
  promptTokenCount SimpleAggregateFunction(sum, UInt64) COMMENT 'Prompt tokens, cached ones included',
  cachedTokenCount SimpleAggregateFunction(sum, UInt64) COMMENT 'Prompt tokens taken from the prefix cache',
  completionTokenCount SimpleAggregateFunction(sum, UInt64) COMMENT 'Tokens generated',
  deviceMs SimpleAggregateFunction(sum, Float64) COMMENT 'All device time charged to them, ms'
)
ENGINE = {engine:AggregatingMergeTree}
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, tenant, modelId, serviceTier, outcome)
TTL hour + INTERVAL 400 DAY DELETE
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Requests by hour and tenant: what a bill stands on';

INSERT INTO tenants_hourly SELECT
  toStartOfHour(fromUnixTimestamp64Milli(toInt64(floor(toUnixTimestamp64Micro(arrivedAt) / 1000 + e2eMs)), 'UTC')) AS hour,
  tenant,
  modelId,
  serviceTier,
  multiIf(requests.outcome != '', requests.outcome, finishReason IN ('stop', 'length'), 'ok', finishReason = 'error', 'failed', finishReason) AS outcome,
  count() AS requestCount,
  sum(requests.promptTokenCount) AS promptTokenCount,
  sum(requests.cachedTokenCount) AS cachedTokenCount,
  sum(requests.completionTokenCount) AS completionTokenCount,
  sum(prefillDeviceMs + decodeDeviceMs + speculationWasteDeviceMs + recomputeDeviceMs) AS deviceMs
FROM requests
GROUP BY hour, tenant, modelId, serviceTier, outcome;

CREATE MATERIALIZED VIEW requests_to_tenants TO tenants_hourly AS SELECT
  toStartOfHour(fromUnixTimestamp64Milli(toInt64(floor(toUnixTimestamp64Micro(arrivedAt) / 1000 + e2eMs)), 'UTC')) AS hour,
  tenant,
  modelId,
  serviceTier,
  multiIf(requests.outcome != '', requests.outcome, finishReason IN ('stop', 'length'), 'ok', finishReason = 'error', 'failed', finishReason) AS outcome,
  count() AS requestCount,
  sum(requests.promptTokenCount) AS promptTokenCount,
  sum(requests.cachedTokenCount) AS cachedTokenCount,
  sum(requests.completionTokenCount) AS completionTokenCount,
  sum(prefillDeviceMs + decodeDeviceMs + speculationWasteDeviceMs + recomputeDeviceMs) AS deviceMs
FROM requests
GROUP BY hour, tenant, modelId, serviceTier, outcome;

DROP VIEW IF EXISTS steps_to_hours;
DROP TABLE IF EXISTS steps_hourly SYNC;
CREATE TABLE steps_hourly (
  hour DateTime('UTC') COMMENT 'Hour in which they started; UTC',
  modelId LowCardinality(String) COMMENT 'Model they computed',
  workerId LowCardinality(String) COMMENT 'Worker that ran them',
  pathId LowCardinality(String) COMMENT 'Execution path they ran on',
  kind LowCardinality(String) COMMENT 'serve, calibration or check',
  firstStartedAt SimpleAggregateFunction(min, DateTime64(6, 'UTC')) COMMENT 'When the first of them started; UTC',
  lastStartedAt SimpleAggregateFunction(max, DateTime64(6, 'UTC')) COMMENT 'When the last of them started; UTC',
  stepCount SimpleAggregateFunction(sum, UInt64) COMMENT 'Steps',
  promptTokenCount SimpleAggregateFunction(sum, Float64) COMMENT 'Prompt tokens taken in, each once: cached, or computed for the first time',
  emittedTokenCount SimpleAggregateFunction(sum, UInt64) COMMENT 'Tokens sent on',
  deviceMs SimpleAggregateFunction(sum, Float64) COMMENT 'Device time, ms',
  prefillDeviceMs SimpleAggregateFunction(sum, Float64) COMMENT 'Part of deviceMs charged to prompt tokens, ms',
  decodeDeviceMs SimpleAggregateFunction(sum, Float64) COMMENT 'Part of deviceMs charged to generated tokens, ms',
  speculationWasteDeviceMs SimpleAggregateFunction(sum, Float64) COMMENT 'Part of deviceMs charged to discarded tokens, ms',
  recomputeDeviceMs SimpleAggregateFunction(sum, Float64) COMMENT 'Part of deviceMs charged to tokens computed again, ms',
  itlMs AggregateFunction(quantilesTDigestWeighted(0.5, 0.95, 0.99), Float64, UInt32) COMMENT 'Gaps between tokens, ms: each step''s mean gap, as often as it had gaps'
)
ENGINE = {engine:AggregatingMergeTree}
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, modelId, workerId, pathId, kind)
TTL hour + INTERVAL 100 DAY DELETE
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Steps by hour, model, worker, path and kind';

INSERT INTO steps_hourly SELECT
  toStartOfHour(startedAt) AS hour,
  modelId,
  workerId,
  pathId,
  kind,
  min(startedAt) AS firstStartedAt,
  max(startedAt) AS lastStartedAt,
  count() AS stepCount,
  sum(cachedTokenCount + prefillTokenCount * if(steps.recomputeDeviceMs > 0, steps.prefillDeviceMs / (steps.prefillDeviceMs + steps.recomputeDeviceMs), 1)) AS promptTokenCount,
  sum(steps.emittedTokenCount) AS emittedTokenCount,
  sum(steps.deviceMs) AS deviceMs,
  sum(steps.prefillDeviceMs) AS prefillDeviceMs,
  sum(steps.decodeDeviceMs) AS decodeDeviceMs,
  sum(steps.speculationWasteDeviceMs) AS speculationWasteDeviceMs,
  sum(steps.recomputeDeviceMs) AS recomputeDeviceMs,
  quantilesTDigestWeightedStateIf(0.5, 0.95, 0.99)(itlMeanMs, itlTokenCount, itlTokenCount > 0) AS itlMs
FROM steps
GROUP BY hour, modelId, workerId, pathId, kind;

CREATE MATERIALIZED VIEW steps_to_hours TO steps_hourly AS SELECT
  toStartOfHour(startedAt) AS hour,
  modelId,
  workerId,
  pathId,
  kind,
  min(startedAt) AS firstStartedAt,
  max(startedAt) AS lastStartedAt,
  count() AS stepCount,
  sum(cachedTokenCount + prefillTokenCount * if(steps.recomputeDeviceMs > 0, steps.prefillDeviceMs / (steps.prefillDeviceMs + steps.recomputeDeviceMs), 1)) AS promptTokenCount,
  sum(steps.emittedTokenCount) AS emittedTokenCount,
  sum(steps.deviceMs) AS deviceMs,
  sum(steps.prefillDeviceMs) AS prefillDeviceMs,
  sum(steps.decodeDeviceMs) AS decodeDeviceMs,
  sum(steps.speculationWasteDeviceMs) AS speculationWasteDeviceMs,
  sum(steps.recomputeDeviceMs) AS recomputeDeviceMs,
  quantilesTDigestWeightedStateIf(0.5, 0.95, 0.99)(itlMeanMs, itlTokenCount, itlTokenCount > 0) AS itlMs
FROM steps
GROUP BY hour, modelId, workerId, pathId, kind;
