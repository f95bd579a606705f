#!/bin/sh
# Runs once, when PostgreSQL makes its data directory. Makes the role that owns the tables, so that a dump can be
# restored before any migration, and the login of web and worker: it has the rights of `sr_app` and no others, so
# row-level security holds for whatever it does.
set -eu
psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
	--set password="$(cat /run/secrets/app_password)" <<'SQL'
CREATE ROLE sr_owner NOLOGIN NOBYPASSRLS;
CREATE ROLE sr_app NOLOGIN NOBYPASSRLS;
CREATE ROLE shared_record LOGIN NOINHERIT NOBYPASSRLS PASSWORD :'password';
GRANT sr_app TO shared_record;
SQL
