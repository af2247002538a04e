-- One database per service and one for the schema registry, each with a login role that can connect to no other.
-- Run by psql as the superuser, as often as one likes: it creates what is missing and sets the passwords anew.
-- Passwords come from the environment, so that they are in no command line.
\set ON_ERROR_STOP on
\set QUIET on
\getenv order_password ORDER_DB_PASSWORD
\getenv inventory_password INVENTORY_DB_PASSWORD
\getenv payment_password PAYMENT_DB_PASSWORD
\getenv notify_password NOTIFY_DB_PASSWORD
\getenv registry_password REGISTRY_DB_PASSWORD

CREATE TEMPORARY TABLE wanted (name text, password text);
INSERT INTO wanted VALUES
    ('order', :'order_password'),
    ('inventory', :'inventory_password'),
    ('payment', :'payment_password'),
    ('notify', :'notify_password'),
    ('registry', :'registry_password');

SELECT format('CREATE ROLE %I LOGIN', name) FROM wanted
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
SELECT format('ALTER ROLE %I PASSWORD %L', name, password) FROM wanted \gexec
SELECT format('CREATE DATABASE %I OWNER %I', name, name) FROM wanted
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name) \gexec
SELECT format('REVOKE CONNECT, TEMPORARY ON DATABASE %I FROM PUBLIC', datname) FROM pg_database
WHERE datallowconn \gexec
