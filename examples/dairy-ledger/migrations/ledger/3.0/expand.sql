-- 3.0 says `litres` for what was `amount`.
ALTER TABLE bottles ADD COLUMN litres numeric(6, 1);
-- milkrun: sync table=bottles old=amount new=litres
ALTER TABLE bottles ALTER COLUMN amount DROP NOT NULL;
