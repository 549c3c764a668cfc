SELECT count(*) FROM bottles WHERE litres IS NULL OR litres IS DISTINCT FROM amount;
