-- milkrun: backfill table=bottles key=id
UPDATE bottles SET farmer = split_part(label, '/', 1), goat = split_part(label, '/', 2)
WHERE id BETWEEN :from AND :upto AND farmer IS NULL;
