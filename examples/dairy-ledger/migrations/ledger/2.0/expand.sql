-- 2.0 knows farmer and goat each by its name. 1.0 goes on with `label`, and both write.
ALTER TABLE bottles ADD COLUMN farmer text;
ALTER TABLE bottles ADD COLUMN goat text;
-- milkrun: sync table=bottles old=label new=farmer,goat forward="split_part(label, '/', 1), split_part(label, '/', 2)" backward="farmer || '/' || goat"
ALTER TABLE bottles ALTER COLUMN label DROP NOT NULL;
CREATE INDEX CONCURRENTLY bottles_goat ON bottles (goat);
