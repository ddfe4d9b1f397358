-- What guesses at a request's tokens would have been worth, verified or not; what a step verified.
ALTER TABLE requests
    ADD COLUMN `watchedTokenCount` UInt32 DEFAULT 0 COMMENT 'Generated tokens at which a guess was looked for, verified or not; 0 where nobody looked, and the next three say nothing' CODEC(T64, LZ4) AFTER `acceptedTokenCount`,
    ADD COLUMN `guessedTokenCount` UInt32 DEFAULT 0 COMMENT 'Watched tokens at which there was a guess' CODEC(T64, LZ4) AFTER `watchedTokenCount`,
    ADD COLUMN `rightGuessCount` UInt32 DEFAULT 0 COMMENT 'Watched tokens that were guessed right' CODEC(T64, LZ4) AFTER `guessedTokenCount`,
    ADD COLUMN `rightRunCount` UInt32 DEFAULT 0 COMMENT 'Stretches of tokens guessed right one after the other' CODEC(T64, LZ4) AFTER `rightGuessCount`;
ALTER TABLE steps
    ADD COLUMN `draftedTokenCount` UInt32 DEFAULT 0 COMMENT 'Guesses that the step verified' CODEC(T64, LZ4) AFTER `emittedTokenCount`,
    ADD COLUMN `acceptedDraftCount` UInt32 DEFAULT 0 COMMENT 'Of them, right' CODEC(T64, LZ4) AFTER `draftedTokenCount`;
