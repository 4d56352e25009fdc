#!/bin/sh
# Starts the state server. With Sentinel it asks the sentinels who the primary is, and follows that one; the first of the
# servers is the primary of a flow that has none yet.
# Reads: REDIS_PASSWORD, REDIS_SERVICE, REDIS_REPLICAS, REDIS_MAXMEMORY (bytes), POD_NAME.
set -eu
conf=/run/redis/redis.conf
umask 077
{
  echo "include /etc/redis/redis.conf"
  echo "requirepass $REDIS_PASSWORD"
  echo "masterauth $REDIS_PASSWORD"
  if [ "$REDIS_MAXMEMORY" != 0 ]; then echo "maxmemory $REDIS_MAXMEMORY"; fi
} >"$conf"
if [ "$REDIS_REPLICAS" -gt 1 ]; then
  self="$POD_NAME.$REDIS_SERVICE"
  export REDISCLI_AUTH="$REDIS_PASSWORD"
  primary=""
  while [ -z "$primary" ]; do
    number=0
    while [ "$number" -lt "$REDIS_REPLICAS" ] && [ -z "$primary" ]; do
      answer=$(timeout 2 redis-cli -h "$REDIS_SERVICE-$number.$REDIS_SERVICE" -p 26379 \
        sentinel get-master-addr-by-name primary 2>/dev/null | head -n 1 || true)
      case "$answer" in "$REDIS_SERVICE"-*) primary=$answer ;; esac
      number=$((number + 1))
    done
    if [ -z "$primary" ]; then sleep 0.5; fi
  done
  {
    echo "replica-announce-ip $self"
    echo "min-replicas-to-write 1"
    if [ "$primary" != "$self" ]; then echo "replicaof $primary 6379"; fi
  } >>"$conf"
fi
exec redis-server "$conf"
