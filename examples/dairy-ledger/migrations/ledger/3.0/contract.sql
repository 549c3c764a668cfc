ALTER TABLE bottles DROP COLUMN amount;
ALTER TABLE bottles ADD CONSTRAINT bottles_measured CHECK (litres IS NOT NULL) NOT VALID;
ALTER TABLE bottles VALIDATE CONSTRAINT bottles_measured;
