-- What became of tries, and pauses of ours told apart from those that a target asked for.

ALTER TABLE notification_configs ADD COLUMN IF NOT EXISTS probe_at timestamptz;
COMMENT ON COLUMN notification_configs.probe_at IS 'after too many failures in a row nothing is sent before, but for what somebody tries out';
COMMENT ON COLUMN notification_configs.paused_until IS 'the target wants nothing before';
COMMENT ON COLUMN notification_outbox.urgency IS '0 info, 1 warning, 2 critical, 3 somebody tries the target out and waits';

-- Counters for the metrics: rows of the log go back to pending when they are sent again, so they cannot be counted there.
CREATE TABLE IF NOT EXISTS notification_counts (
    channel text NOT NULL,
    result text NOT NULL CHECK (result IN ('sent', 'failed', 'retried', 'dead')),
    count bigint NOT NULL,
    PRIMARY KEY (channel, result)
) WITH (fillfactor = 50);
COMMENT ON TABLE notification_counts IS 'sent: messages that arrived; failed: tries that did not; retried: tries that are followed by another; dead: messages that were given up';

INSERT INTO notification_counts (channel, result, count)
SELECT channel, 'sent', count(*) FROM notification_logs WHERE status = 'sent' GROUP BY 1
UNION ALL
SELECT channel, 'dead', count(*) FROM notification_logs WHERE status = 'failed' GROUP BY 1
UNION ALL
SELECT channel, 'failed', sum(attempts - (status = 'sent')::int) FROM notification_logs WHERE attempts > 0 GROUP BY 1
UNION ALL
SELECT channel, 'retried', sum(attempts - (status <> 'pending')::int) FROM notification_logs WHERE attempts > 0 GROUP BY 1
ON CONFLICT (channel, result) DO NOTHING;
