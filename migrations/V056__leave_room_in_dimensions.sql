-- Folding updates most rows of a busy experiment every two seconds. Where a page has no room for the new version, the index
-- gets a new entry too, and reports go over pages of dead rows.

ALTER TABLE variant_dimensions SET (fillfactor = 50);
