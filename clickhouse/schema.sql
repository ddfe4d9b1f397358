-- The tables as the migrations make them today; migrate.test.ts compares. Write it anew with vitest -u.

CREATE TABLE model_fits
(
    `fitId` String COMMENT 'Hash of the fit\'s content',
    `deviceKind` LowCardinality(String) COMMENT 'Kind of device it holds for',
    `modelHash` LowCardinality(String) COMMENT 'Model it holds for',
    `kernelsId` LowCardinality(String) COMMENT 'Kernels it holds for',
    `fittedAt` DateTime64(6, 'UTC') COMMENT 'When it was made; UTC',
    `sampleCount` UInt32 COMMENT 'Steps it was made from',
    `kneeTokens` Float64 COMMENT 'Where the hinge term begins, tokens',
    `betaMs` String COMMENT 'Its seven coefficients by name, ms, as JSON',
    `heldOutMape` Nullable(Float64) COMMENT 'Mean absolute relative error on held-out steps, 0..1',
    `heldOutCount` UInt32 COMMENT 'Held-out steps',
    `logBand90` Nullable(Float64) COMMENT 'Half-width of the 90 % band of log(measured / predicted)',
    `residuals` String DEFAULT '' COMMENT 'Its residuals as JSON: center, scale, places, weights, logRatios; empty where it has none'
)
ENGINE = MergeTree
ORDER BY (deviceKind, modelHash, kernelsId, fittedAt)
SETTINGS non_replicated_deduplication_window = 1000, index_granularity = 8192
COMMENT 'One row per published step-time fit';

CREATE TABLE regime_states
(
    `savedAt` DateTime64(6, 'UTC') COMMENT 'End of the newest window it has seen; UTC',
    `detector` LowCardinality(String) COMMENT 'What it is the state of: another detector does not read it',
    `windowMs` UInt32 COMMENT 'Length of its windows, ms',
    `state` String COMMENT 'Reference, newest windows and known regimes, as JSON' CODEC(ZSTD(3))
)
ENGINE = MergeTree
ORDER BY (detector, savedAt)
TTL toDateTime(savedAt) + toIntervalDay(30)
SETTINGS non_replicated_deduplication_window = 1000, index_granularity = 8192
COMMENT 'The regime detector\'s state; the newest row counts';

CREATE TABLE regimes
(
    `startedAt` DateTime64(6, 'UTC') COMMENT 'When the changed workload began; UTC',
    `detectedAt` DateTime64(6, 'UTC') COMMENT 'When the detector marked it; UTC',
    `regimeId` String COMMENT 'Names the regime',
    `name` String COMMENT 'For people, made from the features',
    `isConfirmed` Bool COMMENT 'The windows after the mark agreed',
    `features` String COMMENT 'The window\'s features by name, as JSON',
    `detector` LowCardinality(String) COMMENT 'What marked it'
)
ENGINE = MergeTree
ORDER BY (startedAt, detectedAt)
SETTINGS non_replicated_deduplication_window = 1000, index_granularity = 8192
COMMENT 'One row per mark of a changed workload; a later row of the same regimeId and startedAt replaces it';

CREATE TABLE requests
(
    `arrivedAt` DateTime64(6, 'UTC') COMMENT 'When the gateway had the whole request; UTC' CODEC(Delta(8), ZSTD(1)),
    `requestId` String COMMENT 'Unique; also the x-request-id header' CODEC(ZSTD(1)),
    `endpoint` LowCardinality(String) COMMENT 'HTTP path',
    `modelId` LowCardinality(String) COMMENT 'Model that served it',
    `tenant` LowCardinality(String) COMMENT 'Whose key it came with',
    `keyId` LowCardinality(String) DEFAULT '' COMMENT 'Name of the key it came with; empty where none was asked for',
    `session` String COMMENT 'Conversation it belongs to; empty where none was named' CODEC(ZSTD(1)),
    `program` String COMMENT 'The whole of an agent\'s calls' CODEC(ZSTD(1)),
    `serviceTierAsked` LowCardinality(String) DEFAULT '' COMMENT 'As the client asked; empty where it did not',
    `serviceTier` LowCardinality(String) COMMENT 'priority, default or flex',
    `serviceTierReason` String DEFAULT '' COMMENT 'Why it ran in its tier, for people' CODEC(ZSTD(1)),
    `isStreamed` Bool COMMENT 'Answered by server-sent events',
    `status` UInt16 COMMENT 'HTTP status; 200 for a stream that began',
    `outcome` LowCardinality(String) DEFAULT '' COMMENT 'ok, cancelled, expired, failed, or refused before it had a sequence; empty before this column was',
    `finishReason` LowCardinality(String) COMMENT 'stop, length, cancelled, expired or error; empty where it was refused',
    `errorCode` LowCardinality(String) COMMENT 'OpenAI error code; empty where it did not fail',
    `workerId` LowCardinality(String) COMMENT 'Worker that ended it',
    `pathId` LowCardinality(String) COMMENT 'Execution path live when it ended',
    `isMixedNumerics` Bool COMMENT 'Steps of more than one numericsId computed it',
    `promptTokenCount` UInt32 COMMENT 'Prompt tokens, cached ones included' CODEC(T64, LZ4),
    `cachedTokenCount` UInt32 COMMENT 'Prompt tokens taken from the prefix cache' CODEC(T64, LZ4),
    `completionTokenCount` UInt32 COMMENT 'Tokens generated' CODEC(T64, LZ4),
    `speculatedTokenCount` UInt32 DEFAULT 0 COMMENT 'Tokens drafted by speculation' CODEC(T64, LZ4),
    `acceptedTokenCount` UInt32 DEFAULT 0 COMMENT 'Drafted tokens that were right' CODEC(T64, LZ4),
    `watchedTokenCount` UInt32 DEFAULT 0 COMMENT 'Generated tokens at which a guess was looked for, verified or not; 0 where nobody looked, and the next three say nothing' CODEC(T64, LZ4),
    `guessedTokenCount` UInt32 DEFAULT 0 COMMENT 'Watched tokens at which there was a guess' CODEC(T64, LZ4),
    `rightGuessCount` UInt32 DEFAULT 0 COMMENT 'Watched tokens that were guessed right' CODEC(T64, LZ4),
    `rightRunCount` UInt32 DEFAULT 0 COMMENT 'Stretches of tokens guessed right one after the other' CODEC(T64, LZ4),
    `queueMs` Float64 COMMENT 'Submission to first being scheduled, ms' CODEC(ZSTD(1)),
    `prefillMs` Float64 DEFAULT 0 COMMENT 'First being scheduled to first token, ms; 0 where no token was produced' CODEC(ZSTD(1)),
    `decodeMs` Float64 DEFAULT 0 COMMENT 'First to last token, ms' CODEC(ZSTD(1)),
    `ttftMs` Float64 COMMENT 'Arrival to first token, ms; 0 where no token was produced' CODEC(ZSTD(1)),
    `tpotMs` Float64 COMMENT 'Mean gap between its tokens, ms; 0 below two tokens' CODEC(ZSTD(1)),
    `itlP95Ms` Float64 COMMENT '95th percentile of its gaps between tokens, ms' CODEC(ZSTD(1)),
    `itlMaxMs` Float64 COMMENT 'Longest gap between its tokens, ms' CODEC(ZSTD(1)),
    `e2eMs` Float64 COMMENT 'Arrival to end, ms' CODEC(ZSTD(1)),
    `preemptionCount` UInt32 COMMENT 'Times it was pushed back to waiting' CODEC(T64, LZ4),
    `resumeCount` UInt16 DEFAULT 0 COMMENT 'Times it went on with another worker after its own was lost' CODEC(T64, LZ4),
    `prefillDeviceMs` Float64 COMMENT 'Device time charged for prompt tokens, ms' CODEC(ZSTD(1)),
    `decodeDeviceMs` Float64 COMMENT 'Device time charged for generated tokens, ms' CODEC(ZSTD(1)),
    `speculationWasteDeviceMs` Float64 COMMENT 'Device time charged for discarded tokens, ms' CODEC(ZSTD(1)),
    `recomputeDeviceMs` Float64 COMMENT 'Device time charged for tokens computed again after a preemption, ms' CODEC(ZSTD(1)),
    `fitId` LowCardinality(String) COMMENT 'Last step-time fit that split a step for it; empty before the first',
    `fitCount` UInt16 COMMENT 'Fits that took part in its account' CODEC(T64, LZ4),
    `isAccountFinal` Bool COMMENT 'False where a worker was lost before the last charge',
    `ttftObjectiveMs` Float64 COMMENT 'Objective it was admitted under, ms' CODEC(ZSTD(1)),
    `itlObjectiveMs` Float64 COMMENT 'Objective it was admitted under, ms' CODEC(ZSTD(1)),
    `isWithinObjectives` Bool COMMENT 'Met all of its objectives',
    INDEX requestIdIndex requestId TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(arrivedAt)
ORDER BY (modelId, tenant, toStartOfHour(arrivedAt), arrivedAt)
TTL toDateTime(arrivedAt) + toIntervalDay(90)
SETTINGS non_replicated_deduplication_window = 1000, index_granularity = 8192
COMMENT 'One row per request, written when its account is final';

CREATE TABLE requests_hourly
(
    `hour` DateTime('UTC') COMMENT 'Hour in which they ended; UTC',
    `modelId` LowCardinality(String) COMMENT 'Model that served them',
    `serviceTier` LowCardinality(String) COMMENT 'priority, default or flex',
    `outcome` LowCardinality(String) COMMENT 'What they came to, as in requests',
    `requestCount` SimpleAggregateFunction(sum, UInt64) COMMENT 'Requests',
    `objectiveCount` SimpleAggregateFunction(sum, UInt64) COMMENT 'Those that had objectives and whose client stayed',
    `withinObjectivesCount` SimpleAggregateFunction(sum, UInt64) COMMENT 'Those of them that met all of these',
    `promptTokenCount` SimpleAggregateFunction(sum, UInt64) COMMENT 'Prompt tokens, cached ones included',
    `cachedTokenCount` SimpleAggregateFunction(sum, UInt64) COMMENT 'Prompt tokens taken from the prefix cache',
    `completionTokenCount` SimpleAggregateFunction(sum, UInt64) COMMENT 'Tokens generated',
    `prefillDeviceMs` SimpleAggregateFunction(sum, Float64) COMMENT 'Device time charged for prompt tokens, ms',
    `decodeDeviceMs` SimpleAggregateFunction(sum, Float64) COMMENT 'Device time charged for generated tokens, ms',
    `speculationWasteDeviceMs` SimpleAggregateFunction(sum, Float64) COMMENT 'Device time charged for discarded tokens, ms',
    `recomputeDeviceMs` SimpleAggregateFunction(sum, Float64) COMMENT 'Device time charged for tokens computed again, ms',
    `ttftMs` AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Float64) COMMENT 'TTFT of streamed requests with a token, ms',
    `tpotMs` AggregateFunction(quantilesTDigestWeighted(0.5, 0.95, 0.99), Float64, UInt32) COMMENT 'Gaps between tokens of streamed requests, ms: each request\'s mean gap, as often as it had gaps'
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, modelId, serviceTier, outcome)
TTL hour + toIntervalDay(100)
SETTINGS non_replicated_deduplication_window = 1000, index_granularity = 8192
COMMENT 'Requests by hour, model, tier and outcome';

CREATE MATERIALIZED VIEW requests_to_hours TO requests_hourly
(
    `hour` DateTime('UTC'),
    `modelId` LowCardinality(String),
    `serviceTier` LowCardinality(String),
    `outcome` String,
    `requestCount` UInt64,
    `objectiveCount` UInt64,
    `withinObjectivesCount` UInt64,
    `promptTokenCount` UInt64,
    `cachedTokenCount` UInt64,
    `completionTokenCount` UInt64,
    `prefillDeviceMs` Float64,
    `decodeDeviceMs` Float64,
    `speculationWasteDeviceMs` Float64,
    `recomputeDeviceMs` Float64,
    `ttftMs` AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Float64),
    `tpotMs` AggregateFunction(quantilesTDigestWeighted(0.5, 0.95, 0.99), Float64, UInt32)
)
AS SELECT
    toStartOfHour(fromUnixTimestamp64Milli(toInt64(floor((toUnixTimestamp64Micro(arrivedAt) / 1000) + e2eMs)), 'UTC')) AS hour,
    modelId,
    serviceTier,
    multiIf(requests.outcome != '', requests.outcome, (finishReason IN ('stop', 'length')), 'ok', finishReason = 'error', 'failed', finishReason) AS outcome,
    count() AS requestCount,
    countIf((finishReason != 'cancelled') AND (ttftObjectiveMs > 0)) AS objectiveCount,
    countIf(isWithinObjectives AND (finishReason IN ('stop', 'length')) AND (ttftObjectiveMs > 0)) AS withinObjectivesCount,
    sum(requests.promptTokenCount) AS promptTokenCount,
    sum(requests.cachedTokenCount) AS cachedTokenCount,
    sum(requests.completionTokenCount) AS completionTokenCount,
    sum(requests.prefillDeviceMs) AS prefillDeviceMs,
    sum(requests.decodeDeviceMs) AS decodeDeviceMs,
    sum(requests.speculationWasteDeviceMs) AS speculationWasteDeviceMs,
    sum(requests.recomputeDeviceMs) AS recomputeDeviceMs,
    quantilesTDigestStateIf(0.5, 0.95, 0.99)(requests.ttftMs, (requests.ttftMs > 0) AND isStreamed) AS ttftMs,
    quantilesTDigestWeightedStateIf(0.5, 0.95, 0.99)(requests.tpotMs, toUInt32(greatest(requests.completionTokenCount, 1) - 1), isStreamed AND (requests.completionTokenCount > 1)) AS tpotMs
FROM requests
GROUP BY
    hour,
    modelId,
    serviceTier,
    outcome;

CREATE MATERIALIZED VIEW requests_to_tenants TO tenants_hourly
(
    `hour` DateTime('UTC'),
    `tenant` LowCardinality(String),
    `modelId` LowCardinality(String),
    `serviceTier` LowCardinality(String),
    `outcome` String,
    `requestCount` UInt64,
    `promptTokenCount` UInt64,
    `cachedTokenCount` UInt64,
    `completionTokenCount` UInt64,
    `deviceMs` Float64
)
AS SELECT
    toStartOfHour(fromUnixTimestamp64Milli(toInt64(floor((toUnixTimestamp64Micro(arrivedAt) / 1000) + e2eMs)), 'UTC')) AS hour,
    tenant,
    modelId,
    serviceTier,
    multiIf(requests.outcome != '', requests.outcome, (finishReason IN ('stop', 'length')), 'ok', finishReason = 'error', 'failed', finishReason) AS outcome,
    count() AS requestCount,
    sum(requests.promptTokenCount) AS promptTokenCount,
    sum(requests.cachedTokenCount) AS cachedTokenCount,
    sum(requests.completionTokenCount) AS completionTokenCount,
    sum(((prefillDeviceMs + decodeDeviceMs) + speculationWasteDeviceMs) + recomputeDeviceMs) AS deviceMs
FROM requests
GROUP BY
    hour,
    tenant,
    modelId,
    serviceTier,
    outcome;

CREATE TABLE schema_migrations
(
    `name` String COMMENT 'File in clickhouse/migrations',
    `sha256` String COMMENT 'Of the file as it was applied',
    `appliedAt` DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'UTC'
)
ENGINE = MergeTree
ORDER BY name
SETTINGS non_replicated_deduplication_window = 1000, index_granularity = 8192
COMMENT 'Which migrations were applied';

CREATE TABLE steps
(
    `startedAt` DateTime64(6, 'UTC') COMMENT 'When the worker composed it; UTC' CODEC(Delta(8), ZSTD(1)),
    `workerId` LowCardinality(String) COMMENT 'Worker that ran it',
    `bootId` LowCardinality(String) COMMENT 'Start of the worker process; (bootId, stepId) is unique',
    `stepId` UInt64 COMMENT 'Counts from the start of the worker process' CODEC(Delta(8), ZSTD(1)),
    `kind` LowCardinality(String) COMMENT 'serve, calibration or check',
    `deviceKind` LowCardinality(String) COMMENT 'Kind of device; keys fits together with modelHash and kernelsId',
    `modelId` LowCardinality(String) COMMENT 'Model it computed',
    `modelHash` LowCardinality(String) COMMENT 'Hash of the model\'s weights and configuration',
    `pathId` LowCardinality(String) COMMENT 'Execution path it ran on',
    `kernelsId` LowCardinality(String) COMMENT 'The path\'s variants and threads, which decide how long a batch takes',
    `numericsId` LowCardinality(String) COMMENT 'What decides bits',
    `rolloutId` LowCardinality(String) COMMENT 'Rollout it belongs to; empty outside a canary',
    `blockIndex` Int32 COMMENT 'Block of the canary\'s plan; -1 outside one' CODEC(ZSTD(1)),
    `isSettling` Bool COMMENT 'Its state was not made under the path\'s limits; judges leave it out',
    `tokenCount` UInt32 COMMENT 'Tokens computed, prefill and decode' CODEC(T64, LZ4),
    `decodeSequenceCount` UInt32 COMMENT 'Sequences that decoded' CODEC(T64, LZ4),
    `prefillSequenceCount` UInt32 COMMENT 'Sequences that prefilled' CODEC(T64, LZ4),
    `prefillTokenCount` UInt32 COMMENT 'Prompt tokens computed, those computed again included' CODEC(T64, LZ4),
    `prefillContextTokens` UInt64 DEFAULT 0 COMMENT 'Tokens already in the KV cache of prefilling sequences; sum_prefill_kv_tokens' CODEC(T64, LZ4),
    `prefillLengthVariance` Float64 DEFAULT 0 COMMENT 'Variance of the prefill chunks\' lengths, tokens squared; var_prefill_length' CODEC(ZSTD(1)),
    `decodeContextTokens` UInt64 COMMENT 'Sum of context lengths of decoding sequences, tokens' CODEC(T64, LZ4),
    `prefillAttention` Float64 COMMENT 'Sum of c * (p + c / 2) over prefill chunks, tokens squared' CODEC(ZSTD(1)),
    `runningCount` UInt32 COMMENT 'Sequences running' CODEC(T64, LZ4),
    `waitingCount` UInt32 COMMENT 'Sequences waiting' CODEC(T64, LZ4),
    `waitingTokenCount` UInt64 DEFAULT 0 COMMENT 'Tokens of waiting sequences, cached ones included; queued sum_prefill_tokens' CODEC(T64, LZ4),
    `kvUsedBlockCount` UInt32 COMMENT 'KV blocks in use' CODEC(T64, LZ4),
    `kvBlockCount` UInt32 COMMENT 'KV blocks in all' CODEC(T64, LZ4),
    `evictedBlockCount` UInt32 DEFAULT 0 COMMENT 'Blocks that left the prefix cache while it was composed' CODEC(T64, LZ4),
    `preemptionCount` UInt32 COMMENT 'Sequences pushed back to waiting' CODEC(T64, LZ4),
    `cachedTokenCount` UInt32 COMMENT 'Prefix-cache tokens of sequences first scheduled here' CODEC(T64, LZ4),
    `emittedTokenCount` UInt32 COMMENT 'Tokens sent on' CODEC(T64, LZ4),
    `draftedTokenCount` UInt32 DEFAULT 0 COMMENT 'Guesses that the step verified' CODEC(T64, LZ4),
    `acceptedDraftCount` UInt32 DEFAULT 0 COMMENT 'Of them, right' CODEC(T64, LZ4),
    `itlMeanMs` Float64 COMMENT 'Mean gap before emitted tokens that are not a first one, ms; 0 when none' CODEC(ZSTD(1)),
    `itlMaxMs` Float64 COMMENT 'Longest of these gaps, ms' CODEC(ZSTD(1)),
    `itlTokenCount` UInt32 COMMENT 'How many gaps these are' CODEC(T64, LZ4),
    `deviceMs` Float64 COMMENT 'Device time, ms; on a CPU the wall time of the native call' CODEC(ZSTD(1)),
    `wallMs` Float64 DEFAULT 0 COMMENT 'Composing to settled, ms; ForwardPassMetrics wall_time' CODEC(ZSTD(1)),
    `scheduleMs` Float64 COMMENT 'Composing and settling on the event loop, ms' CODEC(ZSTD(1)),
    `predictedMs` Float64 COMMENT 'Device time the fit predicted, ms; 0 without a fit' CODEC(ZSTD(1)),
    `fitId` LowCardinality(String) COMMENT 'Fit in use; empty without one',
    `foreignCpuShare` Float64 COMMENT 'Share of the machine\'s CPU time taken by other processes, 0..1' CODEC(ZSTD(1)),
    `energyJoules` Float64 DEFAULT 0 COMMENT 'Energy of the device since the row before that has any, pauses included, J; 0 where it does not say' CODEC(ZSTD(1)),
    `powerWatts` Float64 DEFAULT 0 COMMENT 'Power of the device as last told, W; 0 where it does not say' CODEC(ZSTD(1)),
    `smClockMhz` Float64 DEFAULT 0 COMMENT 'Clock of the device\'s multiprocessors as last told, MHz; 0 where it does not say' CODEC(ZSTD(1)),
    `prefillDeviceMs` Float64 COMMENT 'Part of deviceMs charged to prompt tokens, ms' CODEC(ZSTD(1)),
    `decodeDeviceMs` Float64 COMMENT 'Part of deviceMs charged to generated tokens, ms' CODEC(ZSTD(1)),
    `speculationWasteDeviceMs` Float64 COMMENT 'Part of deviceMs charged to discarded tokens, ms' CODEC(ZSTD(1)),
    `recomputeDeviceMs` Float64 COMMENT 'Part of deviceMs charged to tokens computed again, ms' CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toMonday(startedAt)
ORDER BY (deviceKind, modelHash, kernelsId, toStartOfHour(startedAt), startedAt)
TTL toDateTime(startedAt) + toIntervalDay(30)
SETTINGS non_replicated_deduplication_window = 1000, index_granularity = 8192
COMMENT 'One row per step of a worker';

CREATE TABLE steps_hourly
(
    `hour` DateTime('UTC') COMMENT 'Hour in which they started; UTC',
    `modelId` LowCardinality(String) COMMENT 'Model they computed',
    `workerId` LowCardinality(String) COMMENT 'Worker that ran them',
    `pathId` LowCardinality(String) COMMENT 'Execution path they ran on',
    `kind` LowCardinality(String) COMMENT 'serve, calibration or check',
    `firstStartedAt` SimpleAggregateFunction(min, DateTime64(6, 'UTC')) COMMENT 'When the first of them started; UTC',
    `lastStartedAt` SimpleAggregateFunction(max, DateTime64(6, 'UTC')) COMMENT 'When the last of them started; UTC',
    `stepCount` SimpleAggregateFunction(sum, UInt64) COMMENT 'Steps',
    `promptTokenCount` SimpleAggregateFunction(sum, Float64) COMMENT 'Prompt tokens taken in, each once: cached, or computed for the first time',
    `emittedTokenCount` SimpleAggregateFunction(sum, UInt64) COMMENT 'Tokens sent on',
    `deviceMs` SimpleAggregateFunction(sum, Float64) COMMENT 'Device time, ms',
    `prefillDeviceMs` SimpleAggregateFunction(sum, Float64) COMMENT 'Part of deviceMs charged to prompt tokens, ms',
    `decodeDeviceMs` SimpleAggregateFunction(sum, Float64) COMMENT 'Part of deviceMs charged to generated tokens, ms',
    `speculationWasteDeviceMs` SimpleAggregateFunction(sum, Float64) COMMENT 'Part of deviceMs charged to discarded tokens, ms',
    `recomputeDeviceMs` SimpleAggregateFunction(sum, Float64) COMMENT 'Part of deviceMs charged to tokens computed again, ms',
    `itlMs` AggregateFunction(quantilesTDigestWeighted(0.5, 0.95, 0.99), Float64, UInt32) COMMENT 'Gaps between tokens, ms: each step\'s mean gap, as often as it had gaps'
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, modelId, workerId, pathId, kind)
TTL hour + toIntervalDay(100)
SETTINGS non_replicated_deduplication_window = 1000, index_granularity = 8192
COMMENT 'Steps by hour, model, worker, path and kind';

CREATE MATERIALIZED VIEW steps_to_hours TO steps_hourly
(
    `hour` DateTime('UTC'),
    `modelId` LowCardinality(String),
    `workerId` LowCardinality(String),
    `pathId` LowCardinality(String),
    `kind` LowCardinality(String),
    `firstStartedAt` DateTime64(6, 'UTC'),
    `lastStartedAt` DateTime64(6, 'UTC'),
    `stepCount` UInt64,
    `promptTokenCount` Float64,
    `emittedTokenCount` UInt64,
    `deviceMs` Float64,
    `prefillDeviceMs` Float64,
    `decodeDeviceMs` Float64,
    `speculationWasteDeviceMs` Float64,
    `recomputeDeviceMs` Float64,
    `itlMs` AggregateFunction(quantilesTDigestWeighted(0.5, 0.95, 0.99), Float64, UInt32)
)
AS SELECT
    toStartOfHour(startedAt) AS hour,
    modelId,
    workerId,
    pathId,
    kind,
    min(startedAt) AS firstStartedAt,
    max(startedAt) AS lastStartedAt,
    count() AS stepCount,
    sum(cachedTokenCount + (prefillTokenCount * if(steps.recomputeDeviceMs > 0, steps.prefillDeviceMs / (steps.prefillDeviceMs + steps.recomputeDeviceMs), 1))) AS promptTokenCount,
    sum(steps.emittedTokenCount) AS emittedTokenCount,
    sum(steps.deviceMs) AS deviceMs,
    sum(steps.prefillDeviceMs) AS prefillDeviceMs,
    sum(steps.decodeDeviceMs) AS decodeDeviceMs,
    sum(steps.speculationWasteDeviceMs) AS speculationWasteDeviceMs,
    sum(steps.recomputeDeviceMs) AS recomputeDeviceMs,
    quantilesTDigestWeightedStateIf(0.5, 0.95, 0.99)(itlMeanMs, itlTokenCount, itlTokenCount > 0) AS itlMs
FROM steps
GROUP BY
    hour,
    modelId,
    workerId,
    pathId,
    kind;

CREATE TABLE tenants_hourly
(
    `hour` DateTime('UTC') COMMENT 'Hour in which they ended; UTC',
    `tenant` LowCardinality(String) COMMENT 'Whose requests they were',
    `modelId` LowCardinality(String) COMMENT 'Model that served them',
    `serviceTier` LowCardinality(String) COMMENT 'priority, default or flex',
    `outcome` LowCardinality(String) COMMENT 'What they came to, as in requests',
    `requestCount` SimpleAggregateFunction(sum, UInt64) COMMENT 'Requests',
    `promptTokenCount` SimpleAggregateFunction(sum, UInt64) COMMENT 'Prompt tokens, cached ones included',
    `cachedTokenCount` SimpleAggregateFunction(sum, UInt64) COMMENT 'Prompt tokens taken from the prefix cache',
    `completionTokenCount` SimpleAggregateFunction(sum, UInt64) COMMENT 'Tokens generated',
    `deviceMs` SimpleAggregateFunction(sum, Float64) COMMENT 'All device time charged to them, ms'
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, tenant, modelId, serviceTier, outcome)
TTL hour + toIntervalDay(400)
SETTINGS non_replicated_deduplication_window = 1000, index_granularity = 8192
COMMENT 'Requests by hour and tenant: what a bill stands on';
