-- One transaction may write changes of several payments: their revisions are the transaction's number times 1024, plus
-- the place of each among them. Earlier revisions stay as they are; all later ones are greater.
ALTER TABLE payment_changes ALTER COLUMN revision SET DEFAULT pg_current_xact_id()::text::bigint * 1024;

CREATE OR REPLACE FUNCTION payment_changes_settled() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
    RETURN pg_snapshot_xmin(pg_current_snapshot())::text::bigint * 1024 - 1;
