-- What a fit's seven terms leave near the batches that were seen: the prediction corrects by it.
ALTER TABLE model_fits
    ADD COLUMN IF NOT EXISTS `residuals` String DEFAULT '' COMMENT 'Its residuals as JSON: center, scale, places, weights, logRatios; empty where it has none';
