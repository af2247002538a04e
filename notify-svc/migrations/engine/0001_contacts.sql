-- Where customers can be reached. The one thing outside the log: erasable, backed up, not rebuilt (DESIGN §3).
CREATE TABLE contacts (
    customer_id text PRIMARY KEY,
    email       text,
    phone       text
);
