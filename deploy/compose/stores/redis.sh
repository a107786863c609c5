#!/bin/sh
# Redis with a password, every write on disk within a second. The password comes by a pipe: arguments are seen by all.
set -eu
: "${REDIS_PASSWORD:?is not set: copy example.env to .env}"
mkdir -p /data/redis
cat > /tmp/redis.conf <<CONF
bind 0.0.0.0
requirepass $REDIS_PASSWORD
dir /data/redis
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
CONF
exec redis-server /tmp/redis.conf
