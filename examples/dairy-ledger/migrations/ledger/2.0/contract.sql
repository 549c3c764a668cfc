ALTER TABLE bottles DROP COLUMN label;
-- Nobody writes a bottle without them any more: from now on the table says so.
ALTER TABLE bottles ADD CONSTRAINT bottles_named CHECK (farmer IS NOT NULL AND goat IS NOT NULL) NOT VALID;
ALTER TABLE bottles VALIDATE CONSTRAINT bottles_named;
