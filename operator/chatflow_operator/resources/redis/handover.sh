#!/bin/sh
# Runs before a state server is stopped: a primary under Sentinel hands its place to a replica and waits until it has.
set -eu
if [ "$REDIS_REPLICAS" -le 1 ]; then exit 0; fi
export REDISCLI_AUTH="$REDIS_PASSWORD"
if [ "$(redis-cli role | head -n 1)" != master ]; then exit 0; fi
# The old primary keeps its role for some ten seconds after the failover: what it acknowledged then would be lost.
redis-cli client pause 20000 write >/dev/null
# The sentinel of this pod is being stopped as well: another one does it.
answer=""
number=0
while [ "$number" -lt "$REDIS_REPLICAS" ] && [ "$answer" != OK ]; do
  if [ "$REDIS_SERVICE-$number" != "$POD_NAME" ]; then
    answer=$(timeout 2 redis-cli -h "$REDIS_SERVICE-$number.$REDIS_SERVICE" -p 26379 sentinel failover primary || true)
  fi
  number=$((number + 1))
done
if [ "$answer" != OK ]; then
  redis-cli client unpause >/dev/null
  exit 0
fi
tries=0
while [ "$(redis-cli role | head -n 1)" = master ] && [ "$tries" -lt 80 ]; do
  tries=$((tries + 1))
  sleep 0.25
done
