-- What a GPU's driver says of its energy, so that it adds up over steps as their time does.
ALTER TABLE steps
    ADD COLUMN `energyJoules` Float64 DEFAULT 0 COMMENT 'Energy of the device since the row before that has any, pauses included, J; 0 where it does not say' CODEC(ZSTD(1)) AFTER `foreignCpuShare`,
    ADD COLUMN `powerWatts` Float64 DEFAULT 0 COMMENT 'Power of the device as last told, W; 0 where it does not say' CODEC(ZSTD(1)) AFTER `energyJoules`,
    ADD COLUMN `smClockMhz` Float64 DEFAULT 0 COMMENT 'Clock of the device\'s multiprocessors as last told, MHz; 0 where it does not say' CODEC(ZSTD(1)) AFTER `powerWatts`;
