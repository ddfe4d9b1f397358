-- What a request came to and where its time went; what a step left behind and found waiting.
ALTER TABLE requests
    ADD COLUMN `outcome` LowCardinality(String) DEFAULT '' COMMENT 'ok, cancelled, expired or failed; empty before this column was' AFTER `status`,
    ADD COLUMN `prefillMs` Float64 DEFAULT 0 COMMENT 'First being scheduled to first token, ms; 0 where no token was produced' CODEC(ZSTD(1)) AFTER `queueMs`,
    ADD COLUMN `decodeMs` Float64 DEFAULT 0 COMMENT 'First to last token, ms' CODEC(ZSTD(1)) AFTER `prefillMs`,
    ADD COLUMN `speculatedTokenCount` UInt32 DEFAULT 0 COMMENT 'Tokens drafted by speculation' CODEC(T64, LZ4) AFTER `completionTokenCount`,
    ADD COLUMN `acceptedTokenCount` UInt32 DEFAULT 0 COMMENT 'Drafted tokens that were right' CODEC(T64, LZ4) AFTER `speculatedTokenCount`,
    ADD COLUMN `resumeCount` UInt16 DEFAULT 0 COMMENT 'Times it went on with another worker after its own was lost' CODEC(T64, LZ4) AFTER `preemptionCount`;
ALTER TABLE steps
    ADD COLUMN `wallMs` Float64 DEFAULT 0 COMMENT 'Composing to settled, ms; ForwardPassMetrics wall_time' CODEC(ZSTD(1)) AFTER `deviceMs`,
    ADD COLUMN `prefillContextTokens` UInt64 DEFAULT 0 COMMENT 'Tokens already in the KV cache of prefilling sequences; sum_prefill_kv_tokens' CODEC(T64, LZ4) AFTER `prefillTokenCount`,
    ADD COLUMN `prefillLengthVariance` Float64 DEFAULT 0 COMMENT 'Variance of the prefill chunks\' lengths, tokens squared; var_prefill_length' CODEC(ZSTD(1)) AFTER `prefillContextTokens`,
    ADD COLUMN `waitingTokenCount` UInt64 DEFAULT 0 COMMENT 'Tokens of waiting sequences, cached ones included; queued sum_prefill_tokens' CODEC(T64, LZ4) AFTER `waitingCount`,
    ADD COLUMN `evictedBlockCount` UInt32 DEFAULT 0 COMMENT 'Blocks that left the prefix cache while it was composed' CODEC(T64, LZ4) AFTER `kvBlockCount`;
