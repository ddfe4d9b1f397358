-- Requests that were refused have rows too: finishReason is empty there, and nobody counts them as served.
ALTER TABLE requests
    COMMENT COLUMN `outcome` 'ok, cancelled, expired, failed, or refused before it had a sequence; empty before this column was',
    COMMENT COLUMN `finishReason` 'stop, length, cancelled, expired or error; empty where it was refused';
