-- The table as version 1.0 made it, years ago: who gave the milk stands in one text, as 'anna/heidi'.
CREATE TABLE bottles (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ticket uuid NOT NULL UNIQUE, -- of the client: a bottle that is brought twice is written down once
    label text NOT NULL,
    amount numeric(6, 1) NOT NULL
);
