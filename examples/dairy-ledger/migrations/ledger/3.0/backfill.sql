-- milkrun: backfill table=bottles key=id
UPDATE bottles SET litres = amount WHERE id BETWEEN :from AND :upto AND litres IS NULL;
