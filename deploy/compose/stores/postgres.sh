#!/bin/sh
# Makes the cluster of databases where there is none, adds the databases that are missing, then serves.
set -eu
PATH=/usr/lib/postgresql/15/bin:$PATH
export PGDATA=/data/postgres PGHOST=/tmp PGUSER=churn
: "${POSTGRES_PASSWORD:?is not set: copy example.env to .env}"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  rm -rf "$PGDATA"    # what an interrupted start left
  (umask 077; printf %s "$POSTGRES_PASSWORD" > /tmp/password)
  initdb --username=churn --encoding=UTF8 --auth-local=trust --auth-host=scram-sha-256 --pwfile=/tmp/password > /dev/null
  rm /tmp/password
  echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
fi
pg_ctl start --wait --silent --log=/tmp/start.log --options="-c listen_addresses='' -c unix_socket_directories=/tmp"
for database in mlflow feast optuna rollout; do
  psql -d postgres -Atc "select 1 from pg_database where datname = '$database'" | grep -q 1 || createdb "$database"
done
pg_ctl stop --wait --silent --mode=fast
exec postgres -c listen_addresses='*' -c unix_socket_directories=/tmp
