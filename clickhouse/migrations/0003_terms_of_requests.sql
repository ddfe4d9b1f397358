-- Whose key a request came with, and why it ran in its tier.
ALTER TABLE requests
    ADD COLUMN `keyId` LowCardinality(String) DEFAULT '' COMMENT 'Name of the key it came with; empty where none was asked for' AFTER `tenant`,
    ADD COLUMN `serviceTierAsked` LowCardinality(String) DEFAULT '' COMMENT 'As the client asked; empty where it did not' AFTER `program`,
    ADD COLUMN `serviceTierReason` String DEFAULT '' COMMENT 'Why it ran in its tier, for people' CODEC(ZSTD(1)) AFTER `serviceTier`;
