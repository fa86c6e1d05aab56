-- Impressions and rewards of arms go with the events that they came from; what was learned from them stays.

ALTER TABLE fold_state ADD COLUMN IF NOT EXISTS pulls_dropped_before timestamptz;
COMMENT ON COLUMN fold_state.pulls_dropped_before IS 'value of dropped_before for which pulls and rewards were deleted to the end';
