-- PostgreSQL writes a new version of a row for each update. If its page has room for it and no indexed column changes, no index
-- changes either, and the log has only the bytes that differ. Inserts leave this room free; SQLite updates rows in place.
/*postgresql:
ALTER TABLE subscriptions SET (fillfactor = 50);
ALTER TABLE webhooks SET (fillfactor = 75);
*/
