SELECT count(*) FROM bottles WHERE farmer IS NULL OR goat IS NULL;
SELECT count(*) FROM bottles WHERE label IS DISTINCT FROM farmer || '/' || goat;
